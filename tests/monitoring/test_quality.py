"""The metrics of predicted classes, against scikit-learn, and the labels that they come from."""

import numpy as np
import pytest
from sklearn import metrics

from dbx_aml import monitor_table
from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring.quality import LabelColumn, Labels, class_metrics, quality_numbers


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


NAN = float("nan")
ROWS = [(1.0, 1, True, "1", 1.0), (0.0, 0, False, "0", 0.0), (1.0, 0, True, "0", NAN),
        (2.5, 7, None, "2.5", 2.5), (NAN, 1, True, "1", 1.0)]  # fmt: skip


@pytest.mark.spark
@pytest.mark.parametrize(
    ("label", "expected"),
    [("number", (4, 0.5)), ("flag", (3, 1.0)), ("text", (4, 0.75)), ("float", (3, 1.0))],
)
def test_1_and_1_0_and_true_are_one_class_and_nan_is_no_label(spark, label, expected):
    columns = "prediction double, number int, flag boolean, text string, float double"
    rows = spark.createDataFrame(ROWS, columns).selectExpr("*", "1L AS window")
    column = LabelColumn(name=label, problem_type="classification")
    (found,) = Labels(spark, column, rows).compute_quality(rows, rows.window, None).values()
    assert (found["dbx_aml_labeled_rows"], found["accuracy_score"]) == expected


@pytest.mark.spark
def test_labels_of_a_table_that_was_made_again_are_new(spark, spark_database):
    scored = spark.createDataFrame([(1, 1.0)], "id int, prediction double")

    def labels(**changes):
        table = f"{spark_database}.facts"
        column = LabelColumn(name="fact", table=table, key="id", **changes)
        return Labels(spark, column, scored)

    def make(*rows):
        facts = spark.createDataFrame(list(rows), "id int, fact int")
        facts.write.format("delta").saveAsTable(f"{spark_database}.facts")

    make((2, 1))
    first = labels()
    row = {"dbx_aml_label_version": first.version, "dbx_aml_labeled_rows": 0, "count": 1}
    row["dbx_aml_labels"] = first.name
    assert not labels().is_new_for(row)
    assert labels(problem_type="classification").is_new_for(row)
    spark.sql(f"DROP TABLE {spark_database}.facts").collect()
    make((1, 1))
    assert labels().version == first.version
    assert labels().is_new_for(row)


@pytest.mark.spark
@pytest.mark.slow
def test_labels_of_another_kind_replace_the_numbers_of_the_first(spark, spark_database):
    rows = [(float(number % 2), number % 2, 1_750_000_000_000_000) for number in range(4)]
    frame = spark.createDataFrame(rows, "prediction double, fact int, batch bigint")
    table = f"{spark_database}.scored"
    frame.selectExpr("prediction", "fact", "struct(batch) AS _scoring").write.format(
        "delta"
    ).saveAsTable(table)
    assert "r2_score" in monitor_table(table, label="fact", spark=spark).quality
    with pytest.raises(ArgumentError, match="threshold accuracy must go with labels of"):
        monitor_table(table, label="fact", thresholds={"accuracy": 0.9}, spark=spark)
    result = monitor_table(table, label="fact", problem_type="classification", spark=spark)
    assert result.quality == dict.fromkeys(("accuracy_score", "precision", "recall", "f1_score"), 1)
