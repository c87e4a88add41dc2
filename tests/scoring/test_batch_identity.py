"""A batch is what decides its rows: nothing that leaves them as they are, and all that does not."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from dbx_aml.scoring.batch_identity import batch_identity, differences, job_identity
from dbx_aml.scoring.pinned_model import digest_files
from tests.support.models import XY, choosy_sum, save_model

IDENTITY = {
    "model_uri": "models:/m/1",
    "input_table": "/data/t",
    "input_id": "5125",
    "input_data_version": 3,
    "row_filter": None,
    "write_mode": "append",
    "batch_id": None,
}


def test_the_differences_of_two_identities_are_one_line_with_old_and_new_values():
    new = {**IDENTITY, "input_data_version": 4, "row_filter": "x > 1"}
    assert differences(IDENTITY, new) == (
        "input_data_version was 3, is 4; row_filter was None, is 'x > 1'"
    )
    assert differences(IDENTITY, dict(IDENTITY)) == ""
    assert differences({}, {"a": 1}) == "a was None, is 1"


@pytest.mark.parametrize(
    ("change", "is_same_job"),
    [
        ({"model_uri": "models:/m/2"}, True),
        ({"input_data_version": 4}, True),
        ({"input_table": "/data/u"}, False),
        ({"row_filter": "x > 1"}, False),
        ({"write_mode": "replace"}, False),
        ({"batch_id": "monday"}, False),
    ],
)
def test_a_job_stays_the_same_when_its_model_or_its_input_moves_on(change, is_same_job):
    assert (job_identity({**IDENTITY, **change}) == job_identity(IDENTITY)) is is_same_job


def test_a_server_is_one_server_with_and_without_a_slash_at_its_end():
    facts = [
        batch_identity(
            MagicMock(resolved=MagicMock(registry_uri=uri, segments=None, time_zone="UTC"))
        )
        for uri in ("https://ana.example/mlflow", "https://ana.example/mlflow/")
    ]
    assert facts[0]["registry_uri"] == facts[1]["registry_uri"] == "https://ana.example/mlflow"


def test_the_digest_of_a_model_has_all_files_but_those_that_python_writes(tmp_path):
    for name, text in (("MLmodel", "a"), ("code/m.py", "b")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    digest = digest_files(tmp_path)
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "m.pyc").write_text("c")
    assert digest_files(tmp_path) == digest
    (tmp_path / "code" / "m.py").write_text("c")
    assert digest_files(tmp_path) != digest


@pytest.fixture
def batch_id_of(spark, score, delta_table, xy_model):
    """Return the batch id of a dry run with some arguments changed."""
    table = delta_table(spark.sql("SELECT 1.0D x, 2.0D y, 3 AS month, 'a' AS note"))

    def call(model=xy_model, **arguments):
        arguments = {"input_table": table, "output_columns": "x,note", **arguments}
        return score(model, dry_run=True, **arguments).plan["batch_id"]

    call.table = table
    return call


@pytest.mark.spark
def test_a_batch_id_is_the_same_for_another_spelling_and_after_maintenance(
    spark, tmp_path, batch_id_of, xy_model
):
    first = batch_id_of()
    assert batch_id_of(input_table=batch_id_of.table.replace("`/", "`file:/")) == first
    spark.sql(f"OPTIMIZE {batch_id_of.table}")
    spark.sql(f"ALTER TABLE {batch_id_of.table} SET TBLPROPERTIES ('a' = 'b')")
    spark.sql(f"ALTER TABLE {batch_id_of.table} ALTER COLUMN x COMMENT 'length'")
    spark.sql(f"ALTER TABLE {batch_id_of.table} ADD COLUMNS (size INT)")
    assert batch_id_of() == first
    # The zone changes nothing that a model without timestamps sees.
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        assert batch_id_of() == first
        with_filter = batch_id_of(row_filter="month = 3")
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    in_utc = batch_id_of(row_filter="month = 3")
    assert in_utc != with_filter
    # A cluster calls the same zone by another name.
    spark.conf.set("spark.sql.session.timeZone", "Etc/UTC")
    try:
        assert batch_id_of(row_filter="month = 3") == in_utc
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


@pytest.mark.spark
def test_a_batch_id_changes_with_everything_that_decides_the_rows(
    spark, tmp_path, batch_id_of, xy_model
):
    ids = [
        batch_id_of(),
        batch_id_of(row_filter="month = 3"),
        batch_id_of(output_columns="x"),
        batch_id_of(output_columns="x,month"),
        batch_id_of(write_mode="replace"),
        batch_id_of(write_mode="replace", replace_where="x > 0"),
        batch_id_of(write_mode="merge", key_columns="x"),
        batch_id_of(write_mode="merge", key_columns="x,note"),
        batch_id_of(quarantine_table="another_quarantine"),
        batch_id_of(model=save_model(tmp_path / "b", choosy_sum, XY)),
    ]
    (Path(xy_model) / "requirements.txt").write_text("mlflow\n# saved again\n")
    ids.append(batch_id_of())
    spark.sql(f"INSERT INTO {batch_id_of.table} VALUES (5, 6, 7, 'b')")
    ids.append(batch_id_of())
    location = batch_id_of.table.split("`")[1]
    spark.read.format("delta").load(location).write.format("delta").save(f"{location}_copy")
    ids.append(batch_id_of(input_table=f"delta.`{location}_copy`"))
    assert len(set(ids)) == len(ids)


@pytest.mark.spark
def test_a_model_copied_to_another_path_is_the_same_model(tmp_path, batch_id_of, xy_model):
    import shutil

    shutil.copytree(xy_model, tmp_path / "copy")
    assert batch_id_of(model=str(tmp_path / "copy")) == batch_id_of()


@pytest.mark.spark
def test_a_version_of_another_registry_is_another_model_and_no_secret_is_kept(
    tmp_path, batch_id_of, xy_model
):
    import mlflow

    ids = []
    for number in (1, 2):
        uri = f"sqlite:///{tmp_path}/{number}.db"
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.create_registered_model("m")
        client.create_model_version("m", source=xy_model)
        arguments = {"tracking_uri": uri, "registry_uri": uri}
        ids += [batch_id_of(model="models:/m/1", **arguments) for _ in range(2)]
    assert ids[0] == ids[1] != ids[2] == ids[3]
