"""A pinned model bound to a table's columns, as a Spark function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.column_binding import (
    bind_columns,
    udf_columns,
    udf_fields,
    unscorable,
)
from dbx_aml.scoring.guard import LIMITED, STRICT
from dbx_aml.scoring.guarded_model import wrap_in_guard
from dbx_aml.scoring.pinned_model import PinnedModel

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# Struct column with what the guarded model returns; neither table keeps it.
RESULT = "_dbx_aml_result"
# Rows on which the model's seconds a row are measured.
_TIMED_ROWS = 1000
_SPARK_TYPES = {
    "boolean": T.BooleanType(),
    "int": T.IntegerType(),
    "bigint": T.LongType(),
    "float": T.FloatType(),
    "double": T.DoubleType(),
    "string": T.StringType(),
}

# Names and Spark types of the fields of the guarded model's result.
Fields = tuple[tuple[str, str], ...]


class ModelUdf:
    """The guarded model as a Spark function of the input table's columns.

    The files of the model are moved into the guarded model.

    Raises:
        SchemaMismatchError: The table lacks a column of the model, or a type does not convert.
    """

    def __init__(
        self,
        spark: SparkSession,
        model: PinnedModel,
        column_types: Mapping[str, str],
        env_manager: str,
    ) -> None:
        self.bound_columns = bind_columns(
            model.inputs, column_types, as_json=env_manager != "local"
        )
        self._spark = spark
        self._env_manager = env_manager
        # Removed with this object: Spark's workers may read the files until then.
        self._folder = TemporaryDirectory(prefix="dbx_aml_")
        _, reasons = unscorable(self.bound_columns)
        self._columns = udf_columns(self.bound_columns)
        # Columns cost a tenth less than one struct of them. But MLflow makes a dictionary of each
        # value of a column that is a struct, and a model server needs the names.
        self._takes_struct = env_manager != "local" or any(
            column.source_type.startswith("struct<") for column in self.bound_columns
        )
        self._guarded_model = wrap_in_guard(
            model,
            reasons,
            Path(self._folder.name) / "guarded",
            env_manager,
            None if self._takes_struct else list(self._columns),
        )
        self._result_type = _struct_type(udf_fields(model.outputs))
        self._udfs: dict[tuple[bool, bool], Callable[..., Column]] = {}

    def prepare(self, *, strict: bool, limited: bool) -> None:
        """Create the function, so that it is there when the rows are."""
        self._udf(strict=strict, limited=limited)

    def with_result(
        self, rows: DataFrame, *, strict: bool = False, limited: bool = False
    ) -> DataFrame:
        """Return rows with the struct `RESULT`: the predictions, and the reason of a failing row.

        Args:
            rows: Rows of the input table.
            strict: Whether the query fails if a worker cannot score any of its first rows.
            limited: Whether the query fails if a task has too many rows with a reason.
        """
        udf = self._udf(strict=strict, limited=limited)
        if self._takes_struct:
            return rows.withColumn(RESULT, udf(F.struct(*self._named_columns())))
        return rows.withColumn(RESULT, udf(*map(F.expr, self._columns.values())))

    def with_empty_result(self, rows: DataFrame) -> DataFrame:
        """Return rows with a null of `RESULT`'s type: enough for a schema, without the model."""
        return rows.withColumn(RESULT, F.lit(None).cast(self._result_type))

    def model_columns(self, rows: DataFrame) -> DataFrame:
        """Return just the columns of the table that the model reads."""
        names = dict.fromkeys(column.column for column in self.bound_columns)
        return rows.select(*(F.col(sql_identifier(name)) for name in names))

    def readable_columns(self, rows: DataFrame) -> DataFrame:
        """Return the columns that the model reads, with null for a value that it cannot get.

        Python has no date for some of these values: a driver that collects them ends in an error.
        """
        return rows.select(
            *(
                F.expr(
                    f"CASE WHEN {column.unscorable_when} THEN NULL "
                    f"ELSE {sql_identifier(column.column)} END"
                    if column.unscorable_when
                    else sql_identifier(column.column)
                ).alias(column.column)
                for column in self.bound_columns
            )
        )

    def measure_seconds_per_row(self, rows: DataFrame) -> float:
        """Return the model's seconds a row on this machine, measured on a few rows."""
        import mlflow.pyfunc

        sample = rows.limit(_TIMED_ROWS).select(*self._named_columns()).toPandas()
        model = mlflow.pyfunc.load_model(str(self._guarded_model), suppress_warnings=True)
        model.predict(sample)
        start_time = time.perf_counter()
        model.predict(sample)
        return (time.perf_counter() - start_time) / max(len(sample), 1)

    def _named_columns(self) -> list[Column]:
        return [F.expr(sql).alias(name) for name, sql in self._columns.items()]

    def _udf(self, *, strict: bool, limited: bool) -> Callable[..., Column]:
        """Return the guarded model as a Spark function.

        It is created once, when it is needed: on a cluster, that sends the model to every worker.
        """
        import mlflow.pyfunc

        if (strict, limited) not in self._udfs:
            self._udfs[strict, limited] = mlflow.pyfunc.spark_udf(
                self._spark,
                str(self._guarded_model),
                result_type=self._result_type,
                env_manager=self._env_manager,
                model_config={STRICT: strict, LIMITED: limited} if strict or limited else None,
            )
        return self._udfs[strict, limited]


def _struct_type(fields: Fields) -> T.StructType:
    return T.StructType([T.StructField(name, _spark_type(text)) for name, text in fields])


def _spark_type(text: str) -> T.DataType:
    if text.startswith("array<"):
        return T.ArrayType(_SPARK_TYPES[text[len("array<") : -1]])
    return _SPARK_TYPES[text]
