"""A filter that selects other rows of the same table tomorrow is recognised in every spelling."""

import pytest
from pyspark.sql.types import StructType

from dbx_aml.scoring.row_filter import unstable_parts

pytestmark = [pytest.mark.spark, pytest.mark.connect]

COLUMNS = "id bigint, x double, s string, day date, at timestamp, now int, m struct<a int>"


@pytest.fixture(scope="module")
def parts_of(spark):
    """Return the unstable parts of a filter where functions and a variable are declared."""
    rows = spark.createDataFrame([], StructType.fromDDL(COLUMNS))
    spark.udf.register("python_function", lambda x: x, "int")
    # A name of Spark's own for a function of the user; Spark does not give its own back.
    spark.udf.register("soundex", lambda x: x, "int")
    spark.sql("CREATE OR REPLACE TEMPORARY FUNCTION today() RETURNS DATE RETURN current_date()")
    spark.sql("CREATE OR REPLACE TEMP VIEW allowed AS SELECT 1 AS n")
    spark.sql("DECLARE OR REPLACE VARIABLE lowest INT DEFAULT 3")
    yield lambda row_filter: unstable_parts(spark, row_filter, rows, "t")
    spark.sql("DROP TEMPORARY VARIABLE lowest")
    spark.catalog.dropTempView("allowed")
    for name in ("python_function", "today"):
        spark.sql(f"DROP TEMPORARY FUNCTION {name}")


@pytest.mark.parametrize(
    "row_filter",
    [
        "id = 1",
        "t.x > 1 AND s IN ('a', 'now()', 'select')",
        "`now` > 3 AND m.a > 1",
        "day > date'2020-01-01' AND at < timestamp '2020-01-01 00:00:00'",
        "at < timestamp'epoch'",
        "s = 'today' -- now()",
        "s IN ('a', 'now') OR 'yesterday' = s OR s = 'today or not'",
        "upper(s) = 'A' AND coalesce(x, 0) > 1",
        "day > add_months(date'2020-01-01', 3) - interval '1' day",
        "year(day) = 2020 AND extract(month FROM day) = 3 AND NOT (id > 3)",
        "CASE WHEN x > 1 THEN CAST(s AS INT) = 1 ELSE s::int = 2 END",
        "s RLIKE 'a{2}' AND hash(s) % 10 = 1",
        "exists(array(1, 2), n -> n > id)",
        "timestampadd(DAY, 1, at) > timestamp'2020-01-01'",
        "at > '2020-01-01 12:00' AND s >= '12:00' AND s BETWEEN '12:00' AND '13:00'",
        "date_format(at, 'HH:mm') >= '12:00' OR s LIKE 'T12%' OR upper(s) = 'T12'",
        "at > to_timestamp('12:00', 'HH:mm')",
    ],
)
def test_columns_constants_and_fixed_functions_select_the_same_rows_another_time(
    parts_of, row_filter
):
    assert parts_of(row_filter) == []


@pytest.mark.parametrize(
    ("row_filter", "part"),
    [
        ("day >= current_date()", "current_date()"),
        ("day >= date_sub(current_date, 7)", "current_date()"),
        ("unix_timestamp(at) > unix_timestamp() - 86400", "current_timestamp()"),
        ("at > now()", "now()"),
        ("day = date 'today'", "date 'today'"),
        ("day = date/* the day */' Yesterday '", "date ' Yesterday '"),
        ("at < timestamp\"now\"", 'timestamp "now"'),
        ("day = 'today'", "'today'"),
        ("day >= ' Yesterday '", "' Yesterday '"),
        ("at BETWEEN 'yesterday' AND timestamp'2020-01-01'", "'yesterday'"),
        ("day IN (\"today\", '2020-01-01')", '"today"'),
        ("s = 'today' AND day = 'today'", "'today'"),
        ("cast('now' AS timestamp) > at", "'now'"),
        ("to_date('tomorrow') > day", "'tomorrow'"),
        ("coalesce(day, 'today') = day", "'today'"),
        ("at > '12:00:00'", "'12:00:00'"),
        ("at > 'T12'", "'T12'"),
        ("at > timestamp '12:00'", "timestamp '12:00'"),
        ("at BETWEEN '6:00' AND timestamp'2020-01-01'", "'6:00'"),
        ("at IN ('12:00', '2020-01-01')", "'12:00'"),
        ("to_timestamp('12:00') > at", "'12:00'"),
        ("s = user()", "user()"),
        ("s = current_user", "current_user()"),
        ("s = current_schema()", "current_schema()"),
        ("x > rand()", "a function that Spark calls non-deterministic"),
        ("x > rand(3)", "a function that Spark calls non-deterministic"),
        ("s = input_file_name()", "a function that Spark calls non-deterministic"),
        ("id > lowest", "a session variable"),
        ("id > session.lowest", "a session variable"),
        ("id IN (SELECT n FROM allowed)", "a query"),
        ("id IN (TABLE allowed)", "a query"),
        ("python_function(id) > 1", "python_function()"),
        ("soundex(id) > 1", "soundex()"),
        ("day = `today`()", "today()"),
        ("concat(" + "s, " * 40 + "string(current_date())) = 'a'", "current_date()"),
    ],
)  # fmt: skip
def test_what_moves_with_time_user_session_or_another_table_is_named(parts_of, row_filter, part):
    assert part in parts_of(row_filter)


def test_a_filter_of_columns_and_constants_costs_no_query(spark):
    rows = spark.createDataFrame([], StructType.fromDDL(COLUMNS))
    assert (
        unstable_parts(None, "id = 1 AND (day > date'2020-01-01' OR s LIKE 'a%')", rows, "t") == []
    )
