"""Predictions by day, from an output table."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from chispa import assert_df_equality

from dbx_aml.scoring.views import predictions_by_day

pytestmark = pytest.mark.spark
BY_DAY = "day date, rows bigint, mean double, p10 double, p90 double"
SCORING = "_scoring struct<batch: bigint>"


def summarize_by_day(spark: Any, name: str, rows: list[Any], schema: str) -> Any:
    spark.createDataFrame(rows, schema).write.mode("overwrite").saveAsTable(name)
    return predictions_by_day(SimpleNamespace(output_table=name), spark)


def batch_number(start: datetime) -> int:
    return int(start.replace(tzinfo=UTC).timestamp() * 1_000_000)


def days(spark: Any, *rows: Any) -> Any:
    return spark.createDataFrame(list(rows), BY_DAY)


def test_the_day_is_that_of_the_first_timestamp_of_the_table(spark) -> None:
    at = (batch_number(datetime(2030, 1, 1)),)
    noon, later = datetime(2026, 5, 1, 12), datetime(2026, 5, 2, 1)
    rows = [(1, noon, later, 1.0, at), (2, noon, later, 3.0, at), (3, later, noon, None, at)]
    schema = f"id int, `at.time` timestamp, other timestamp, prediction double, {SCORING}"

    got = summarize_by_day(spark, "look_timestamp", rows, schema)

    may_1 = (date(2026, 5, 1), 2, 2.0, 1.0, 3.0)
    may_2 = (date(2026, 5, 2), 1, None, None, None)
    # A count is never null, which a schema in words cannot say.
    assert_df_equality(got, days(spark, may_1, may_2), ignore_nullable=True)


@pytest.mark.slow
def test_without_a_date_it_is_the_day_of_scoring(spark) -> None:
    rows = [(1, 5, (batch_number(datetime(2026, 5, 3, 23, 59)),))]

    got = summarize_by_day(spark, "look_scored_at", rows, f"id int, prediction int, {SCORING}")

    may_3 = (date(2026, 5, 3), 1, 5.0, 5.0, 5.0)
    assert_df_equality(got, days(spark, may_3), ignore_nullable=True)


def test_predictions_that_are_no_numbers_are_only_counted(spark) -> None:
    rows = [(date(2026, 5, 4), "7", (batch_number(datetime(2030, 1, 1)),))]

    got = summarize_by_day(spark, "look_text", rows, f"day date, prediction string, {SCORING}")

    may_4 = (date(2026, 5, 4), 1, None, None, None)
    assert_df_equality(got, days(spark, may_4), ignore_nullable=True)


def test_a_table_that_is_not_there_has_no_days(spark) -> None:
    got = predictions_by_day(SimpleNamespace(output_table="look_absent"), spark)

    assert_df_equality(got, days(spark))
