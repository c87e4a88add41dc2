"""A transformation of a job. The job reads and writes tables; the function has only data frames."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

LATE_MINUTES = 15


def add_lateness(flights: DataFrame) -> DataFrame:
    """Return the flights with `is_late`: 15 minutes or more; null without an arrival."""
    return flights.withColumn("is_late", F.col("delay") >= LATE_MINUTES)
