"""The made-up flights: there at the first call, the same ever after."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from dbx_aml import sample_flights

pytestmark = pytest.mark.spark


def test_made_up_flights_are_made_once_and_can_be_learned_from(spark) -> None:
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
    got = flights.agg(
        F.count("*"), cancelled, F.count_if(F.isnull("arr_delay")), F.countDistinct("month")
    )
    assert tuple(got.first()) == (10_000, 37, 37, 12)
    assert flights.corr("dep_delay", "arr_delay") == pytest.approx(0.83, abs=0.01)
    first = flights.orderBy("time_hour", "distance", "dep_delay").first()
    assert first.time_hour.hour == first.hour
