"""The tables of flights: made-up flights that are created once, and real flights with nulls."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from dbx_aml import sample_flights
from dbx_aml.local.samples import read_flights


@pytest.mark.spark
@pytest.mark.slow
def test_made_up_flights_are_created_once_and_can_be_learned_from(spark) -> None:
    name = sample_flights(spark)
    flights = spark.table(name)
    version = spark.sql(f"describe history {name}").count()

    assert sample_flights(spark) == name
    assert spark.sql(f"describe history {name}").count() == version == 1
    assert flights.dtypes == [
        *[("month", "int"), ("day", "int"), ("time_hour", "timestamp"), ("hour", "int")],
        *[("carrier", "string"), ("origin", "string"), ("dest", "string")],
        *[("distance", "int"), ("dep_delay", "int"), ("arr_delay", "int")],
    ]
    cancelled = F.count_if(F.isnull("dep_delay") & F.isnull("arr_delay"))
    counts = flights.agg(
        F.count("*"), cancelled, F.count_if(F.isnull("arr_delay")), F.countDistinct("month")
    )
    assert tuple(counts.first()) == (10_000, 37, 37, 12)
    assert flights.corr("dep_delay", "arr_delay") == pytest.approx(0.83, abs=0.01)
    first = flights.orderBy("time_hour", "distance", "dep_delay").first()
    assert first.time_hour.hour == first.hour


def test_real_flights_are_complete_and_a_missing_value_is_null() -> None:
    flights = read_flights()

    assert flights.shape == (336_776, 19)
    assert flights["dep_delay"].null_count == 8_255
    assert flights["arr_delay"].null_count == 9_430
    assert flights["tailnum"].null_count == 2_512
    assert flights.schema.field("dep_delay").type == pa.int32()
    first = flights.slice(0, 1).to_pylist()[0]
    assert first["time_hour"].isoformat() == "2013-01-01T10:00:00+00:00"
    assert {name: first[name] for name in ("month", "dep_delay", "carrier", "dest")} == {
        "month": 1,
        "dep_delay": 2,
        "carrier": "UA",
        "dest": "IAH",
    }
