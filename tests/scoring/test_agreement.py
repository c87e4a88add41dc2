"""How far the predictions of a model and its challenger agree."""

import json
import math

import pytest

from dbx_aml.scoring.challenger import measure_agreement, population_stability_index

NAN, INF = math.nan, math.inf


@pytest.mark.spark
@pytest.mark.parametrize(
    ("predictions", "others", "before", "now"),
    [
        ([NAN] * 4, [1.0] * 4, [0.0, 1.0], [1.0, 0.0]),
        ([1.0, NAN, 1.0, NAN], [1.0] * 4, [0.5, 0.5], [1.0, 0.0]),
        ([1.0, NAN, 1.0, NAN], [NAN, 1.0, NAN, 1.0], [1.0], [1.0]),
        ([1.0, 1.0, INF, INF], [1.0, 1.0, 1.0, -INF], [0.5, 0.5], [1.0, 0.0]),
    ],
)
def test_nan_is_a_bin_of_the_index(spark, predictions, others, before, now):
    rows = spark.createDataFrame(
        [(a, (b, None)) for a, b in zip(predictions, others, strict=True)],
        "prediction double, _challenger struct<prediction: double, error: string>",
    )
    agreement = json.loads(measure_agreement(rows.coalesce(1), "models:/delay/2"))
    expected = population_stability_index(before, now)
    assert agreement["population_stability_index"] == pytest.approx(expected)
    assert agreement["rows_compared"] == 4
