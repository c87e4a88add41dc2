"""The tables of monitoring, with the column names of Databricks' data profiling.

Columns of this package come last and start with `dbx_aml_`. A row with the column name ":table" is
about all columns, one with ":quarantine" about the rows that were not scored.

Source:
    Databricks, "Data profiling metric tables" (Azure Databricks documentation, 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.delta_write import write_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

_PERIOD = "struct<`start`: timestamp, `end`: timestamp>"
_TEST = "struct<statistic: double, pvalue: double>"
_CLASS_METRIC = "struct<one_vs_all: map<string, double>, macro: double, weighted: double>"
PROFILE_COLUMNS = f"""
    `window` {_PERIOD}, log_type string, logging_table_commit_version int, monitor_version bigint,
    granularity string, slice_key string, slice_value string, column_name string, count bigint,
    data_type string, num_nulls bigint, avg double, quantiles array<double>, min double, max double,
    stddev double, num_zeros bigint, num_nan bigint, min_length double, max_length double,
    avg_length double, non_null_columns array<string>,
    frequent_items array<struct<item: string, count: bigint>>, median double,
    distinct_count bigint, percent_nan double, percent_null double, percent_zeros double,
    percent_distinct double, accuracy_score double,
    confusion_matrix array<struct<prediction: string, label: string, count: bigint>>,
    precision {_CLASS_METRIC}, recall {_CLASS_METRIC}, f1_score {_CLASS_METRIC},
    mean_squared_error double, root_mean_squared_error double, mean_average_error double,
    mean_absolute_percentage_error double, r2_score double,
    dbx_aml_window bigint, dbx_aml_window_state string, dbx_aml_baseline string,
    dbx_aml_num_infinite bigint, dbx_aml_percent_out_of_range double,
    dbx_aml_bin_counts array<bigint>, dbx_aml_bin_sums array<double>,
    dbx_aml_labels string, dbx_aml_label_version bigint, dbx_aml_labeled_rows bigint,
    dbx_aml_percent_quarantined double
"""
DRIFT_COLUMNS = f"""
    `window` {_PERIOD}, granularity string, monitor_version bigint, slice_key string,
    slice_value string, column_name string, data_type string, window_cmp {_PERIOD},
    drift_type string, count_delta bigint, avg_delta double, percent_null_delta double,
    percent_zeros_delta double, percent_distinct_delta double,
    non_null_columns_delta struct<added: int, missing: int>, js_distance double, ks_test {_TEST},
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
        self._columns = columns
        self._exists: bool | None = None

    @cached_property
    def _schema(self) -> StructType:
        return self._spark.createDataFrame([], self._columns).schema

    def read(
        self, condition: str = "true", columns: Sequence[str] = ("*",)
    ) -> list[dict[str, Any]]:
        """Return the rows of a condition; no rows where the table does not exist."""
        rows = self.table.read_if_exists(self._spark)
        self._exists = rows is not None
        if rows is None:
            return []
        found = rows.where(condition).select(*columns).collect()
        return [row.asDict(recursive=True) for row in found]

    def complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a new row as `read` returns it: with null in the columns that it leaves out."""
        return {name: row.get(name) for name in self._schema.names}

    def write(self, rows: Iterable[Mapping[str, Any]], replaced: str) -> None:
        """Put rows in the place of the rows of a condition, in one transaction."""
        values = [tuple(row.get(name) for name in self._schema.names) for row in rows]
        frame = self._spark.createDataFrame(values, self._schema).coalesce(1)
        # Another run may have made the table since it was read.
        exists = self._exists or self.table.exists(self._spark)
        # Delta skips the files of other windows, also where a column has the 40th place.
        options = {} if exists else {"delta.dataSkippingStatsColumns": self._key_columns}
        write_rows(frame, self.table, options, exists=exists, replaced=replaced if exists else None)
        self._exists = True

    @property
    def _key_columns(self) -> str:
        names = ("granularity", "column_name", "dbx_aml_window")
        return ",".join(name for name in names if name in self._schema.names)
