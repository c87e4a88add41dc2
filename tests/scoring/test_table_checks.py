"""The tables of a job are places of their own, and can take the rows: known before any write."""

import pytest

from dbx_aml._common.errors import ArgumentError, SchemaMismatchError, ScoringError
from dbx_aml.scoring.table_checks import Place, check_places


def place(argument, name=None, location=None):
    return Place(argument=argument, given=str(name or location), name=name, location=location)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (place("input_table", "c.s.t"), place("output_table", "c.s.t"),
         "output_table must not be input_table"),
        (place("input_table", "c.s.t", "/t"), place("output_table", "delta.`/t`", "/t"),
         "output_table must not be input_table"),
        (place("output_table", "c.s.t"), place("quarantine_table", "c.s.t"),
         "quarantine_table must not be output_table"),
        (place("input_table", "c.s.q"), place("quarantine_table", "c.s.q"),
         "pass a view of it without the column _quarantine as input_table, and another"),
        (place("output_table", "a", "/d/o"), place("quarantine_table", "b", "/d/o/q"),
         "quarantine_table must not be inside the folder of output_table"),
        (place("input_table", "a", "/d/i/x"), place("output_table", "b", "/d/i"),
         "input_table must not be inside the folder of output_table"),
        (place("output_table", "a", "/d/o"), place("checkpoint_location", None, "/d/o"),
         "checkpoint_location must not be output_table"),
        (place("output_table", "a", "/d/o"), place("checkpoint_location", None, "/d/o/ck"),
         "checkpoint_location must not be inside the folder of output_table"),
        (place("output_table", "a", "/d/o"), place("checkpoint_location", None, "/d/o/_delta_log"),
         "checkpoint_location must not be inside the folder of output_table"),
        (place("output_table", "a", "/d/ck/o"), place("checkpoint_location", None, "/d/ck"),
         "output_table must not be inside the folder of checkpoint_location"),
    ],
)  # fmt: skip
def test_two_arguments_that_name_one_place_are_refused(first, second, message):
    with pytest.raises(ArgumentError) as error:
        check_places([first, second])
    assert message in str(error.value)


def test_places_beside_each_other_and_checkpoints_in_a_folder_that_delta_ignores_are_allowed():
    check_places(
        [
            place("input_table", "c.s.i", "/d/i"),
            place("output_table", "c.s.o", "/d/o"),
            place("quarantine_table", "c.s.q", "/d/o_quarantine"),
            place("a view", "c.s.v"),
            place("checkpoint_location", None, "/d/o/_checkpoints/job"),
        ]
    )


@pytest.fixture
def rows(spark, delta_table):
    return delta_table(spark.createDataFrame([(1.0, 2.0), (3.0, 4.0)], "x double, y double"))


@pytest.mark.spark
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_table": "delta.`{input}/`"}, "output_table must not be input_table"),
        ({"quarantine_table": "delta.`{input}`"}, "must not be input_table"),
        ({"quarantine_table": "delta.`{output}`"}, "quarantine_table must not be output_table"),
        ({"quarantine_table": "delta.`{output}_batches`"},
         "the ledger of output_table must not be quarantine_table"),
        ({"quarantine_table": "delta.`{input}/q`"}, "must not be inside the folder of input_table"),
        ({"output_table": "made", "quarantine_table": "default.MADE"},
         "quarantine_table must not be output_table"),
        ({"output_table": "parquet.`{output}`"}, "output_table must be a Delta table"),
        ({"write_mode": "incremental", "checkpoint_location": "{input}"},
         "checkpoint_location must not be input_table"),
        ({"output_columns": "x, X"}, "output_columns must be input columns"),
        ({"output_columns": ["x", "x"]}, "output_columns must name each column once: got ['x']"),
    ],
)  # fmt: skip
def test_a_request_whose_places_are_not_five_is_refused(
    spark, score, xy_model, rows, output_table, arguments, message
):
    folders = {"input": rows.split("`")[1], "output": output_table.split("`")[1]}
    arguments = {
        name: text.format(**folders) if isinstance(text, str) else text
        for name, text in arguments.items()
    }
    with pytest.raises((ArgumentError, SchemaMismatchError)) as error:
        score(xy_model, rows, **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert spark.sql(f"DESCRIBE HISTORY {rows}").count() == 1


@pytest.mark.spark
def test_a_view_is_no_output_and_no_quarantine(spark, score, view, xy_model, rows):
    name = view(spark.range(1))
    for argument in ("output_table", "quarantine_table"):
        with pytest.raises(ArgumentError) as error:
            score(xy_model, rows, **{argument: name})
        assert f"{argument} must be a Delta table: got '{name}', which is a temporary view" in str(
            error.value
        )


@pytest.mark.spark
def test_an_input_with_the_column_of_the_quarantine_is_refused(spark, score, view, xy_model):
    table = view(spark.sql("SELECT 1.0D x, 2.0D y, 3 AS _Quarantine"))
    with pytest.raises(SchemaMismatchError, match=r"must leave out .*\['_Quarantine'\]"):
        score(xy_model, table)


@pytest.mark.spark
@pytest.mark.parametrize(
    ("schema", "change", "message"),
    [
        ("x int, y double", None, "'x' is int, not double"),
        ("x double, y double, z int NOT NULL", None, "'z' is NOT NULL"),
        ("x double NOT NULL", None, "'x' is NOT NULL"),
        ("x double, _quarantine string", None, "'_quarantine' is string, not a struct"),
        ("x double, y double", "ADD CONSTRAINT small CHECK (x < 9)", "it has the CHECK 'small'"),
        ("X double", None, None),
        ("x double, y double, note string", None, None),
    ],
)
def test_a_quarantine_that_cannot_take_the_rows_is_refused_before_any_write(
    spark, score, xy_model, rows, output_table, schema, change, message
):
    quarantine = output_table.replace("output", "quarantine")
    spark.sql(f"CREATE TABLE {quarantine} ({schema}) USING delta")
    if change:
        spark.sql(f"ALTER TABLE {quarantine} {change}")
    arguments = {"quarantine_table": quarantine, "dry_run": True}
    if message is None:
        assert score(xy_model, rows, **arguments).status == "planned"
        return
    with pytest.raises(SchemaMismatchError) as error:
        score(xy_model, rows, **arguments)
    assert "quarantine_table must take each input row as it is" in str(error.value)
    assert message in str(error.value)


@pytest.mark.spark
def test_an_append_needs_a_batch_id_where_the_history_no_longer_names_the_rows(
    spark, score, xy_model, rows
):
    from pathlib import Path

    for key in ("delta.checkpointInterval", "a", "b"):
        spark.sql(f"ALTER TABLE {rows} SET TBLPROPERTIES ('{key}' = '2')")
    log = Path(rows.split("`")[1]) / "_delta_log"
    for version in (0, 1):
        (log / f"{version:020}.json").unlink()
    with pytest.raises(ScoringError, match=r"history no longer holds .* begins with version 2"):
        score(xy_model, rows, dry_run=True)
    assert score(xy_model, rows, dry_run=True, write_mode="replace").plan["rows_to_read"] == 2
