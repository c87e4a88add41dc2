"""A table is known by its id, its folder and the version of its data, however it is spelled."""

import uuid

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.table_identity import (
    find_data_version,
    identify_table,
    normalize_location,
    read_versions,
    split_name,
)


def data_version(*commits):
    """Data version of commits in the order of writing: operation, or (operation, metrics, mode)."""
    history = []
    for version, commit in enumerate(commits):
        operation, metrics, mode = (commit, {}, None) if isinstance(commit, str) else commit
        history.append((version, operation, metrics, {"mode": mode}))
    return find_data_version(reversed(history))


@pytest.mark.parametrize(
    "operation",
    ["OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "COMPUTE STATS",
     "ADD CONSTRAINT", "REORG", "UPGRADE PROTOCOL", "CLUSTER BY", "CHANGE COLUMN", "ADD COLUMNS"],
)  # fmt: skip
def test_maintenance_leaves_the_version_of_the_data(operation):
    assert data_version("CREATE TABLE AS SELECT", operation, operation) == 0


@pytest.mark.parametrize(
    "operation",
    ["WRITE", "DELETE", "UPDATE", "MERGE", "RESTORE", "CLONE", "TRUNCATE", "STREAMING UPDATE",
     "RENAME COLUMN", "DROP COLUMNS", "REPLACE TABLE AS SELECT",
     "AN OPERATION OF NEXT YEAR", None],
)  # fmt: skip
def test_any_other_operation_is_a_change_unless_its_metrics_say_otherwise(operation):
    assert data_version("CREATE TABLE", (operation, {}, "Append"), "OPTIMIZE") == 1


@pytest.mark.parametrize(
    ("commit", "version"),
    [
        (("WRITE", {"numOutputRows": "0"}, "Append"), 0),
        (("WRITE", {"numOutputRows": "1"}, "Append"), 1),
        (("WRITE", {"numOutputRows": "0"}, "Overwrite"), 1),
        (("DELETE", {"numRemovedFiles": "0", "numDeletedRows": "0"}, None), 0),
        (("DELETE", {"numRemovedFiles": "1"}, None), 1),
        (("UPDATE", {"numUpdatedRows": "0"}, None), 0),
        (("MERGE", {"numTargetRowsInserted": "0", "numTargetRowsUpdated": "0",
                    "numTargetRowsDeleted": "0"}, None), 0),
        (("MERGE", {"numTargetRowsInserted": "0", "numTargetRowsUpdated": "2",
                    "numTargetRowsDeleted": "0"}, None), 1),
        (("STREAMING UPDATE", {"numOutputRows": "0", "numRemovedFiles": "0"}, None), 0),
        (("STREAMING UPDATE", {"numOutputRows": "0", "numRemovedFiles": "2"}, None), 1),
    ],
)  # fmt: skip
def test_a_commit_without_a_changed_row_is_no_change(commit, version):
    assert data_version("CREATE TABLE", commit) == version


def test_a_history_of_maintenance_alone_has_no_version_of_the_data():
    assert data_version("OPTIMIZE", "VACUUM END") is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [("t", ["t"]), ("main.ml.t", ["main", "ml", "t"]), ("`a-b`.`c.d`", ["a-b", "c.d"]),
     ("`a``b`", ["a`b"]), ("größe", ["größe"])],
)  # fmt: skip
def test_a_name_is_split_as_sql_does(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["a-b", "a b", "a.", ".a", "a..b", "`a", "a b.c", " a", "t@v1"])
def test_a_name_that_sql_cannot_read_is_refused_with_the_argument(name):
    with pytest.raises(ArgumentError, match="output_table must be a name that SQL can read"):
        split_name(name, argument="output_table")


def test_a_folder_has_one_spelling(tmp_path):
    (tmp_path / "a b%20").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b%20")
    expected = str((tmp_path / "a b%20").resolve())
    for location in (f"{tmp_path}/a b%20/", f"{tmp_path}/link", f"{tmp_path}/./x/../a b%20"):
        assert normalize_location(location) == expected
    assert normalize_location("abfss://c@a.dfs.core.windows.net/t/") == (
        "abfss://c@a.dfs.core.windows.net/t"
    )
    assert normalize_location("dbfs:/data/t/") == "dbfs:/data/t"


@pytest.fixture
def table(spark):
    name = f"identity_{uuid.uuid4().hex[:8]}"
    spark.sql(f"CREATE TABLE {name} USING delta AS SELECT 1 AS id")
    yield name
    spark.sql(f"DROP TABLE IF EXISTS {name}")


@pytest.mark.connect
@pytest.mark.spark
def test_every_spelling_of_a_table_gives_one_identity_and_a_new_table_another(spark, table):
    first = identify_table(spark, Table(table))
    spellings = [table.upper(), f"default.{table}", f"`{table}`", f"spark_catalog.default.{table}"]
    assert [identify_table(spark, Table(name)) for name in spellings] == [first] * 4
    assert first.name == f"spark_catalog.default.{table}"
    by_path = identify_table(spark, Table(f"delta.`{first.location}`"))
    assert (by_path.id, by_path.location, by_path.kind) == (first.id, first.location, "delta")
    spark.sql(f"DROP TABLE {table}")
    assert identify_table(spark, Table(table)) is None
    assert identify_table(spark, Table(f"delta.`{first.location}`")) is None
    spark.sql(f"CREATE TABLE {table} USING delta AS SELECT 1 AS id")
    assert identify_table(spark, Table(table)).id != first.id


@pytest.mark.connect
@pytest.mark.spark
def test_a_temporary_view_that_hides_a_table_is_a_view(spark, table, tmp_path):
    spark.sql(f"CREATE TEMP VIEW {table} AS SELECT 7 AS id")
    try:
        hidden = identify_table(spark, Table(table))
        assert (hidden.kind, hidden.id, hidden.name) == ("temporary view", None, table)
        assert read_versions(spark, Table(table), hidden).data_version is None
        assert identify_table(spark, Table(f"default.{table}")).kind == "delta"
    finally:
        spark.catalog.dropTempView(table)
    spark.sql(f"CREATE VIEW {table}_v AS SELECT * FROM {table}")
    assert identify_table(spark, Table(f"{table}_v")).kind == "view"
    spark.sql(f"DROP VIEW {table}_v")
    assert identify_table(spark, Table(f"parquet.`{tmp_path}/p`")).kind == "file"


@pytest.mark.connect
@pytest.mark.spark
def test_the_version_of_the_data_is_that_of_the_last_change(spark, table):
    spark.sql(f"INSERT INTO {table} VALUES (2)")
    spark.sql(f"OPTIMIZE {table}")
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('made.by' = 'ana')")
    rows = spark.sql("SELECT 1 AS id WHERE 1 = 0")
    rows.write.format("delta").option("txnAppId", "a").option("txnVersion", 1).mode(
        "append"
    ).saveAsTable(table)
    source = read_versions(spark, Table(table), identify_table(spark, Table(table)))
    assert (source.version, source.data_version, source.is_data_version_certain) == (4, 1, True)


@pytest.mark.spark
def test_a_cleaned_history_says_that_it_no_longer_holds_the_last_change(spark, table):
    from pathlib import Path

    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.checkpointInterval' = '2')")
    for value in range(3):
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('made.by' = '{value}')")
    identity = identify_table(spark, Table(table))
    for version in (0, 1):
        (Path(identity.location) / "_delta_log" / f"{version:020}.json").unlink()
    source = read_versions(spark, Table(table), identity)
    assert (source.version, source.data_version, source.is_data_version_certain) == (4, 2, False)
