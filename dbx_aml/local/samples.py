"""A table of made-up flights, for notebooks that are tried before there is any data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SAMPLE_TABLE = "dbx_aml_sample_flights"
_ROWS = 10_000


def _one_of(number: str, *values: str) -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return f"element_at(array({listed}), cast({number} % {len(values)} + 1 as int))"


# Each number comes from a hash of the row's own: the same rows everywhere, and no other package.
_DRAWN = ", ".join(f"pmod(xxhash64(id, {seed}), 1000) as r{seed}" for seed in range(6))
_FLIGHTS = f"""
select *,
  timestamp'2013-01-01 00:00:00' + make_interval(0, 0, 0, cast(r0 * 365 / 1000 as int), hour)
    as time_hour,
  {_one_of("r1", "AA", "B6", "DL", "EV", "UA")} as carrier,
  {_one_of("r2", "EWR", "JFK", "LGA")} as origin,
  {_one_of("r3", "ATL", "BOS", "LAX", "MIA", "ORD", "SFO")} as dest,
  200 + cast(r3 % 6 * 450 as int) as distance,
  if(r4 < 4, null, cast(round(-8 - 14 * ln((r4 + 1) / 1001)) as int)) as dep_delay
from (select id, cast(5 + r5 % 18 as int) as hour, * except (id) from (
  select id, {_DRAWN} from range({_ROWS})))
"""
_TABLE = f"""
create table if not exists {SAMPLE_TABLE} as
select cast(month(time_hour) as int) as month, cast(day(time_hour) as int) as day, time_hour,
  hour, carrier, origin, dest, distance, dep_delay,
  cast(round(dep_delay * 1.02 - 6 - distance / 400 + hour / 4 + r2 % 3 * 2
    + (r1 + r2 + r5 - 1500) / 60) as int) as arr_delay
from ({_FLIGHTS})
"""


def sample_flights(spark: SparkSession) -> str:
    """Return the name of a table of made-up flights, in the current schema; make it at first.

    It has the columns of the demo's real flights that the notebooks use. A flight in 250 was
    cancelled: it has no delays.

    Args:
        spark: The session.

    Shape:
        10,000 rows x (month int, day int, time_hour timestamp, hour int, carrier string, origin
        string, dest string, distance int, dep_delay int, arr_delay int).
    """
    spark.sql(_TABLE)
    return SAMPLE_TABLE
