"""Tests of staging tables: their numbers, and those that a job left behind."""

import time

import pytest

from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.staging import staging_number, staging_table, write_staging

DAY_US = 24 * 3600 * 10**6
RUN = 1_764_000_000_000_000


@pytest.mark.parametrize(
    ("batch", "number"),
    [
        pytest.param(RUN, RUN, id="a job of one batch"),
        pytest.param(RUN + DAY_US - 1, RUN, id="a stream on its first day"),
        pytest.param(RUN + 9 * DAY_US + 5, RUN + 9 * DAY_US, id="a stream on its tenth day"),
        pytest.param(RUN - 3 * DAY_US, RUN, id="a batch of an earlier run"),
    ],
)
def test_the_batches_of_a_day_of_a_run_share_a_staging_table(batch, number):
    assert staging_number(RUN, batch) == number


def test_only_staging_tables_of_more_than_a_week_are_dropped(spark, spark_database):
    now_us = int(time.time() * 1e6)
    output = Table(f"{spark_database}.scored")
    old, young, new = (
        staging_table(spark, output, now_us - days * DAY_US) for days in (8, 6, 0)
    )  # fmt: skip
    rows = spark.range(1)
    for table in (old, young):
        rows.write.format("delta").saveAsTable(table.name)
    write_staging(spark, new, rows)
    assert [table.exists(spark) for table in (old, young, new)] == [False, True, True]
