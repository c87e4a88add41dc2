"""Tables to score and a model to score them with, for the tests of this folder."""

import uuid

import pytest

from dbx_aml import score_table
from tests.support.models import XY, choosy_sum, save_model, weighted_sum


@pytest.fixture
def xy_model(tmp_path):
    return save_model(tmp_path, weighted_sum, XY)


@pytest.fixture
def choosy_model(tmp_path):
    return save_model(tmp_path, choosy_sum, XY)


@pytest.fixture
def view(spark):
    """Make a temporary view of a frame and return its name: an input that costs no write."""
    names = []

    def create(frame):
        names.append(f"view_{uuid.uuid4().hex[:12]}")
        frame.createOrReplaceTempView(names[-1])
        return names[-1]

    yield create
    for name in names:
        spark.catalog.dropTempView(name)


@pytest.fixture
def delta_table(tmp_path):
    """Write a frame as a Delta table and return how a job names it: an input with versions."""
    paths = []

    def write(frame, **options):
        paths.append(tmp_path / f"input_{len(paths)}")
        frame.write.format("delta").options(**options).save(str(paths[-1]))
        return f"delta.`{paths[-1]}`"

    return write


@pytest.fixture
def vacuum(spark):
    """Remove the files of all older versions of a table, as VACUUM does after a week."""

    def remove_files(table):
        spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
        try:
            spark.sql(f"VACUUM {table} RETAIN 0 HOURS")
        finally:
            spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")

    return remove_files


@pytest.fixture
def output_table(tmp_path):
    """An output table that does not exist yet."""
    return f"delta.`{tmp_path}/output`"


@pytest.fixture
def score(spark, output_table):
    """Score a model and an input into `output_table`; a view is scored as the batch "batch"."""

    def call(model, input_table, **arguments):
        is_view = input_table.startswith("view_")
        defaults = {"output_table": output_table, **({"batch_id": "batch"} if is_view else {})}
        return score_table(
            model_uri=model, input_table=input_table, spark=spark, **{**defaults, **arguments}
        )

    return call
