"""The metrics of predicted classes, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from dbx_aml.monitoring.quality import class_metrics, quality_numbers


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_classes_are_the_ones_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels = random.choice(["a", "b", "c"], size=200, p=[0.7, 0.2, 0.1])
    predictions = np.where(random.random(200) < 0.6, labels, random.choice(["a", "b", "d"], 200))
    pairs, counts = np.unique(np.stack([predictions, labels]), axis=1, return_counts=True)
    confusion = dict(zip(map(tuple, pairs.T.tolist()), counts.tolist(), strict=True))
    found = class_metrics(confusion)
    assert found["accuracy_score"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    for name in ("precision", "recall", "f1_score"):
        function = getattr(metrics, f"{name.removesuffix('_score')}_score")
        for average in ("macro", "weighted"):
            expected = function(labels, predictions, average=average, zero_division=0)
            assert found[name][average] == pytest.approx(expected), (name, average)
    assert sum(pair["count"] for pair in found["confusion_matrix"]) == 200


def test_quality_numbers_are_the_ones_that_a_row_has():
    row = class_metrics({("a", "a"): 3, ("a", "b"): 1})
    expected = {"accuracy_score": 3 / 4, "precision": 9 / 16, "recall": 3 / 4, "f1_score": 9 / 14}
    assert quality_numbers(row) == pytest.approx(expected)
    assert quality_numbers({"mean_average_error": 0.5}) == {"mean_average_error": 0.5}
