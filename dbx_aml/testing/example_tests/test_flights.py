"""A transformation: a few rows in, the expected rows out, compared by chispa."""

from flights import add_lateness

from dbx_aml.testing.asserts import assert_df_equality


def test_a_flight_is_late_from_15_minutes_on(spark):
    flights = spark.createDataFrame([(14.9,), (15.0,)], "delay DOUBLE")

    actual = add_lateness(flights)

    rows = [(14.9, False), (15.0, True)]
    expected = spark.createDataFrame(rows, "delay DOUBLE, is_late BOOLEAN")
    assert_df_equality(actual, expected, ignore_row_order=True)


def test_a_flight_without_an_arrival_is_neither_late_nor_on_time(spark):
    flights = spark.createDataFrame([(None,)], "delay DOUBLE")

    assert add_lateness(flights).first().is_late is None
