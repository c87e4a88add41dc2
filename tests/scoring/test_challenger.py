"""A challenger predicts the same rows in the same pass, and changes nothing of the champion's."""

import json
import math

import pytest

from dbx_aml import batches
from dbx_aml._common.errors import ArgumentError, SchemaMismatchError
from dbx_aml.scoring.challenger import population_stability_index
from dbx_aml.scoring.column_binding import ModelColumn, ModelOutput
from dbx_aml.scoring.model_udf import ModelUdf
from dbx_aml.scoring.pinned_model import PinnedModel
from tests.support.models import XY, save_model, weighted_sum

pytestmark = [pytest.mark.spark, pytest.mark.slow]

ROWS = [(i, float(i), 0.1 * i) for i in range(100)]


@pytest.fixture
def numbers(spark, delta_table):
    """Return a Delta table of (id, x, y); the choosy model fails where x is negative."""

    def write(rows=ROWS):
        frame = spark.createDataFrame(list(rows), "id int, x double, y double")
        return delta_table(frame.coalesce(1))

    return write


@pytest.fixture
def challenger(tmp_path):
    """A model of x alone, one above the champion's, that fails on every tenth row."""

    def predict(rows):
        if ((rows["x"] % 10) == 5).any():
            raise ValueError("x ends with 5")
        return rows["x"] * 10 + 1

    return save_model(tmp_path, predict, XY[["x"]].astype("float64"))


def rows_of(spark, table, *columns):
    query = f"SELECT {', '.join(columns)} FROM {table}"
    return sorted(tuple(row) for row in spark.sql(query).collect())


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_the_columns_of_the_champion_are_those_of_a_run_without_a_challenger(
    spark, numbers, score, choosy_model, challenger, tmp_path, mode
):
    table = numbers([*ROWS, (100, -1.0, 0.0)])
    arguments = {"write_mode": mode, "key_columns": "id" if mode == "merge" else None}
    alone = score(choosy_model, table, output_table=f"delta.`{tmp_path}/alone`", **arguments)
    plan = score(choosy_model, table, challenger_uri=challenger, dry_run=True, **arguments).plan
    assert plan["challenger_times_model"] > 0
    assert plan["output_columns"][-1] == "_challenger"
    both = score(choosy_model, table, challenger_uri=challenger, **arguments)
    columns = ("id", "x", "y", "prediction")
    expected = rows_of(spark, alone.output_table, *columns)
    assert rows_of(spark, both.output_table, *columns) == expected
    assert len(expected) == both.rows_scored == 100
    assert rows_of(spark, both.quarantine_table, "id") == [(100,)]
    of_challenger = rows_of(
        spark, both.output_table,
        "id", "_challenger.prediction", "_challenger.error", "_challenger.model_version",
    )  # fmt: skip
    assert of_challenger == [
        (i, None if i % 10 == 5 else 10.0 * i + 1,
         "ValueError: x ends with 5" if i % 10 == 5 else None, None)
        for i in range(100)
    ]  # fmt: skip
    (entry,) = batches(both.output_table, spark).collect()
    agreement = json.loads(entry.challenger)
    differences = [1 - 0.1 * i for i in range(100) if i % 10 != 5]
    assert agreement["model_uri"] == challenger
    assert (agreement["rows_compared"], agreement["rows_failed"]) == (90, 10)
    assert agreement["share_equal"] == pytest.approx(1 / 90)
    assert agreement["mean_difference"] == pytest.approx(sum(differences) / 90)
    assert agreement["largest_difference"] == pytest.approx(8.9)
    assert 0 < agreement["population_stability_index"] < 0.05


def test_the_challenger_is_a_part_of_the_batch(
    spark, numbers, score, xy_model, challenger, output_table
):
    table = numbers([(1, 1.0, 1.0)])
    for _ in range(2):
        first = score(xy_model, table, challenger_uri=challenger)
    assert first.status == "already_scored"
    second = score(xy_model, table)
    assert (second.status, second.batch_id == first.batch_id) == ("scored", False)
    assert rows_of(spark, output_table, "_challenger IS NULL") == [(False,), (True,)]


def test_a_challenger_that_is_no_other_model_of_the_same_values_is_refused(
    spark, numbers, score, xy_model, tmp_path
):
    table = numbers([(1, 1.0, 1.0)])
    with pytest.raises(ArgumentError, match="challenger_uri must name another model"):
        score(xy_model, table, challenger_uri=xy_model)
    texts = save_model(tmp_path, lambda rows: rows["x"].astype(str), XY)
    longs = save_model(tmp_path, lambda rows: rows["x"].astype("int64"), XY)
    for uri, kind in ((texts, "string"), (longs, "bigint")):
        with pytest.raises(SchemaMismatchError, match=f"got x {kind} of .* predicts 0 double"):
            score(xy_model, table, challenger_uri=uri)
    smaller = save_model(tmp_path, lambda rows: rows["x"].astype("int32"), XY)
    result = score(xy_model, table, challenger_uri=smaller)
    assert rows_of(spark, result.output_table, "_challenger.prediction") == [(1.0,)]


def test_both_models_run_in_one_python_stage_and_get_each_value_once(spark, tmp_path):
    output = ModelOutput(name="0", field="p0", type="double")

    def pinned(*inputs):
        path = save_model(tmp_path, weighted_sum, XY)
        return PinnedModel(
            uri=path, name=None, version=None, run_id=None, folder=tmp_path / path,
            inputs=inputs, outputs=(output,), content=path, files=path, environment=(),
        )  # fmt: skip

    x, n = ModelColumn(name="x", type="double"), ModelColumn(name="n", type="long")
    n_as_double = ModelColumn(name="n", type="double")
    rows = spark.createDataFrame([(1.0, 2, 3.0)], "x double, n int, rest double")
    types = {"x": "double", "n": "int", "rest": "double"}
    udf = ModelUdf(spark, pinned(x, n), types, pinned(x, n_as_double))
    assert udf.column_names == ["x", "n"]
    plan = spark.sql("EXPLAIN SELECT * FROM {rows}", rows=udf.with_result(rows)).collect()[0][0]
    assert plan.count("ArrowEvalPython") == 1
    # x, n as a long with the code of a null, and n as a double.
    assert len(udf._columns) == 4


def test_the_index_of_equal_shares_is_0_and_grows_with_the_change():
    assert population_stability_index([0.5, 0.5], [0.5, 0.5]) == 0
    expected = 0.4 * math.log(0.9 / 0.5) - 0.4 * math.log(0.1 / 0.5)
    assert population_stability_index([0.5, 0.5], [0.9, 0.1]) == pytest.approx(expected)
    assert math.isfinite(population_stability_index([1.0, 0.0], [0.0, 1.0]))
