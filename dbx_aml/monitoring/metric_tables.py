"""The tables of monitoring, with the column names of Databricks' data profiling.

Columns of this package come last and start with `dbx_aml_`.

Source:
    Databricks, "Data profiling metric tables" (Azure Databricks documentation, 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.delta_write import write_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SHARED = """
    `window` struct<`start`: timestamp, `end`: timestamp>, granularity string, column_name string,
    data_type string, slice_key string, slice_value string, log_type string
"""
_TEST = "struct<statistic: double, pvalue: double>"
PROFILE_COLUMNS = f"""
    {_SHARED}, count bigint, num_nulls bigint, percent_null double, distinct_count bigint,
    percent_distinct double, avg double, stddev double, min double, max double, median double,
    quantiles array<double>, num_zeros bigint, percent_zeros double, num_nan bigint,
    percent_nan double, min_length double, max_length double, avg_length double,
    dbx_aml_window bigint, dbx_aml_window_state string, dbx_aml_baseline string,
    dbx_aml_num_infinite bigint, dbx_aml_percent_out_of_range double,
    dbx_aml_bin_counts array<bigint>, dbx_aml_bin_sums array<double>
"""
DRIFT_COLUMNS = f"""
    {_SHARED}, window_cmp struct<`start`: timestamp, `end`: timestamp>, drift_type string,
    count_delta bigint, avg_delta double, percent_null_delta double, percent_zeros_delta double,
    percent_distinct_delta double, js_distance double, ks_test {_TEST},
    wasserstein_distance double, population_stability_index double, chi_squared_test {_TEST},
    tv_distance double, l_infinity_distance double,
    dbx_aml_window bigint, dbx_aml_rows bigint, dbx_aml_normalized_wasserstein double,
    dbx_aml_status string
"""
BASELINE_COLUMNS = """
    column_name string, data_type string, source string, edges array<double>,
    values array<string>, profile string
"""


class MetricTable:
    """A table of monitoring.

    Args:
        spark: Session.
        table: Table.
        columns: Columns as DDL.
    """

    def __init__(self, spark: SparkSession, table: Table, columns: str) -> None:
        self._spark = spark
        self.table = table
        self._schema = spark.createDataFrame([], columns).schema

    def read(self, condition: str = "true") -> list[dict[str, Any]]:
        """Return the rows of a condition; no rows where the table does not exist."""
        if not self.table.exists(self._spark):
            return []
        rows = self.table.read(self._spark).where(condition).collect()
        return [row.asDict(recursive=True) for row in rows]

    def write(self, rows: Iterable[Mapping[str, Any]], replaced: str) -> None:
        """Put rows in the place of the rows of a condition, in one transaction."""
        values = [tuple(row.get(name) for name in self._schema.names) for row in rows]
        frame = self._spark.createDataFrame(values, self._schema)
        exists = self.table.exists(self._spark)
        write_rows(frame, self.table, {}, exists=exists, replaced=replaced if exists else None)
