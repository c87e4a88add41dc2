"""A notebook with parameters, `%run` and an exit value."""

from pathlib import Path

REPORT = Path(__file__).parent / "notebooks" / "report.py"


def test_the_report_counts_the_late_flights_of_a_month(run_notebook, spark, spark_database):
    flights = spark.createDataFrame([(1, 5.0), (1, 15.0), (2, 60.0)], "month INT, delay DOUBLE")
    flights.write.saveAsTable("flights")

    outcome = run_notebook(
        REPORT, parameters={"input_table": f"{spark_database}.flights", "month": "1"}
    )

    assert outcome.value == "1"
    assert [row.delay for row in outcome.namespace["late"].collect()] == [15.0]


def test_a_month_that_is_no_number_stops_the_report(run_notebook):
    outcome = run_notebook(REPORT, parameters={"month": "January"}, check=False)

    assert outcome.exit_code == 1
    assert "January" in str(outcome.error)
