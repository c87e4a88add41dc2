"""A pinned model, and its challenger, bound to a table's columns, as one Spark function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql import types as T

from dbx_aml._common.text import sql_identifier
from dbx_aml.local.built_environment import BuiltEnvironment, Report, build_environment
from dbx_aml.scoring.challenger import outputs_beside
from dbx_aml.scoring.column_binding import (
    bind_columns,
    udf_columns,
    udf_fields,
    unscorable,
)
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.guard_loader import LIMITED, STRICT, ModelCache
from dbx_aml.scoring.guard_several import CHALLENGER_FIELD, MODEL_VERSION, ChallengerGuard
from dbx_aml.scoring.guarded_model import GUARDED_FOLDER, GuardedModel, wrap_in_guard
from dbx_aml.scoring.own_environment import send_environment
from dbx_aml.scoring.pinned_model import PinnedModel
from dbx_aml.scoring.segments import SegmentModels
from dbx_aml.scoring.spark_errors import name_process_end

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame, SparkSession

    from dbx_aml.scoring.guard_loader import AnyGuard

# Struct column with what the guarded model returns; neither table keeps it.
RESULT = "_dbx_aml_result"
# Rows on which the model's seconds a row are measured; the rows of the first, shorter measurement;
# and the longest time.
_TIMED_ROWS, _FIRST_ROWS, _TIMED_S = 10_000, 100, 5.0
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


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Cost of a model, measured on this machine.

    Args:
        seconds_per_row: Seconds of one core for a row.
        memory_bytes: Memory that loading the model and its predictions took; 0 where the system
            does not tell it.
        challenger_factor: Time of the challenger, divided by the time of the model; None without
            a challenger.
    """

    seconds_per_row: float
    memory_bytes: int
    challenger_factor: float | None = None


class ModelUdf:
    """The guarded model as a Spark function of the input table's columns.

    The files of the model are moved into the guarded model. A challenger is in the same function:
    Spark runs two functions one after the other, and hands the rows to Python twice.

    Args:
        spark: Session.
        model: Pinned model.
        column_types: Columns of the table and their Spark types.
        challenger: Model that predicts the same rows.
        segments: Models of the segments, which take the place of `model`.
        report: Function that is called with the name of each step.

    Raises:
        PackagesError: The model's own environment cannot be built.
        SchemaMismatchError: The table lacks a column of the model, or a type does not convert.
    """

    def __init__(
        self,
        spark: SparkSession,
        model: PinnedModel,
        column_types: Mapping[str, str],
        challenger: PinnedModel | None = None,
        segments: SegmentModels | None = None,
        report: Report = lambda step: None,
    ) -> None:
        pinned = [(model, model.outputs)]
        if challenger is not None:
            pinned.append((challenger, outputs_beside(challenger)))
        if segments is not None:
            pinned = [(each, each.outputs) for each in segments.models]
        bound = [bind_columns(each.inputs, column_types) for each, _ in pinned]
        self.all_columns = tuple(dict.fromkeys(column for columns in bound for column in columns))
        self.challenger_columns = bound[1] if challenger is not None else ()
        self.bound_columns = bound[0] if segments is None else self.all_columns
        self._segments = segments
        self._spark = spark
        # Removed with this object: Spark's workers may read the files until then.
        self._folder = TemporaryDirectory(prefix="dbx_aml_")
        columns_of_models = [udf_columns(columns) for columns in bound]
        self._columns = columns_of_models[0]
        segment_value = ""
        if len(pinned) > 1 or segments is not None:
            # A value that several models get is handed over once.
            values = [sql for columns in columns_of_models for sql in columns.values()]
            if segments is not None:
                segment_value = f"CAST({sql_identifier(segments.column)} AS STRING)"
                values.append(segment_value)
            self._columns = {f"column_{i}": sql for i, sql in enumerate(dict.fromkeys(values))}
        # Columns cost a tenth less than one struct of them. But MLflow makes a dictionary of each
        # value of a column that is a struct.
        self._takes_struct = any(
            column.source_type.startswith("struct<") for column in self.all_columns
        )
        positions = {sql: position for position, sql in enumerate(self._columns.values())}
        has_names = self._takes_struct and self._columns is columns_of_models[0]
        models = [
            GuardedModel(
                model=each,
                outputs=outputs,
                unscorable_reasons=unscorable(bound_columns)[1],
                columns=None if has_names else list(columns),
                positions=[positions[sql] for sql in columns.values()],
            )
            for (each, outputs), bound_columns, columns in zip(
                pinned, bound, columns_of_models, strict=True
            )
        ]
        folder = Path(self._folder.name) / "guarded"
        routing = segments.routing(positions[segment_value]) if segments is not None else None
        # They stay on this machine while this object lives.
        self._built: dict[str, BuiltEnvironment] = {}
        environments = {}
        for each, _ in pinned:
            own = each.own_environment
            if own is not None and own.hash not in environments:
                report("preparing the model's environment")
                self._built[own.hash] = build_environment(own)
                environments[own.hash] = send_environment(spark, self._built[own.hash])
        self._guarded_model = wrap_in_guard(models, folder, environments, routing)
        fields = udf_fields(model.outputs)
        if challenger is not None:
            *others, (reason, kind) = udf_fields(outputs_beside(challenger))
            fields = (*fields, *others, (CHALLENGER_FIELD + reason, kind))
        if segments is not None:
            fields = (*fields, (MODEL_VERSION, "int"))
        self._result_type = _struct_type(fields)
        self._udfs: dict[tuple[bool, bool], Callable[..., Column]] = {}

    @property
    def column_names(self) -> list[str]:
        """Columns of the table that a model reads, and the column of the segments."""
        names = [column.column for column in self.all_columns]
        if self._segments is not None:
            names.append(self._segments.column)
        return list(dict.fromkeys(names))

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

    def with_reason(self, rows: DataFrame, reason: str) -> DataFrame:
        """Return rows with a `RESULT` that has only a reason, from a column of the rows."""
        fields = [
            (F.col(reason) if field.name == REASON else F.lit(None).cast(field.dataType)).alias(
                field.name
            )
            for field in self._result_type.fields
        ]
        return rows.withColumn(RESULT, F.struct(*fields))

    def model_columns(self, rows: DataFrame) -> DataFrame:
        """Return just the columns of the table that a model reads."""
        return rows.select(*(F.col(sql_identifier(name)) for name in self.column_names))

    def readable_columns(self, rows: DataFrame) -> DataFrame:
        """Return the columns that a model reads, with null for a value that it cannot get.

        Python has no date for some of these values: a driver that collects them ends in an error.
        """
        values = []
        for name in self.column_names:
            value = sql_identifier(name)
            for column in self.all_columns:
                if column.column == name and column.unscorable_when:
                    value = f"CASE WHEN {column.unscorable_when} THEN NULL ELSE {value} END"
            values.append(F.expr(value).alias(name))
        return rows.select(*values)

    @name_process_end()
    def measure_cost(self, rows: DataFrame) -> ModelCost:
        """Measure the guarded model on some of the rows on this machine, for at most 5 seconds.

        Args:
            rows: Rows of the input table; those that the model cannot get are left out.
        """
        for column in self.all_columns:
            if column.unscorable_when:
                rows = rows.where(f"NOT coalesce({column.unscorable_when}, false)")
        sample = rows.limit(_TIMED_ROWS).select(*self._named_columns()).toPandas()
        if sample.empty:
            return ModelCost(seconds_per_row=0.0, memory_bytes=0)
        memory_before = _resident_bytes()
        models = ModelCache()
        try:
            guard = models.load(str(self._guarded_model / GUARDED_FOLDER), {})
            # The first prediction of a library takes longer.
            guard.predict(sample.head(_FIRST_ROWS).copy())
            seconds_per_row = _seconds_per_row(guard, sample.head(_FIRST_ROWS))
            count = min(len(sample), int(_TIMED_S / max(seconds_per_row, 1e-9) / 2))
            if count > _FIRST_ROWS:
                seconds_per_row = _seconds_per_row(guard, sample.head(count))
            memory_bytes = max(_resident_bytes() - memory_before, 0)
            memory_bytes += sum(map(_resident_bytes, models.process_ids))
        finally:
            models.forget()
        factor = None
        if isinstance(guard, ChallengerGuard):
            champion_s, challenger_s = guard.seconds
            factor = challenger_s / max(champion_s, 1e-9)
        return ModelCost(
            seconds_per_row=seconds_per_row,
            memory_bytes=memory_bytes,
            challenger_factor=factor,
        )

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
                env_manager="local",
                model_config={STRICT: strict, LIMITED: limited} if strict or limited else None,
            )
        return self._udfs[strict, limited]


def _seconds_per_row(guard: AnyGuard, sample: pd.DataFrame) -> float:
    rows = sample.copy()
    start_time = time.perf_counter()
    guard.predict(rows)
    return (time.perf_counter() - start_time) / len(rows)


def _resident_bytes(process: int | str = "self") -> int:
    """Return the memory that a process holds; 0 on a system without /proc."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _struct_type(fields: Fields) -> T.StructType:
    return T.StructType([T.StructField(name, _spark_type(text)) for name, text in fields])


def _spark_type(text: str) -> T.DataType:
    if text.startswith("array<"):
        return T.ArrayType(_SPARK_TYPES[text[len("array<") : -1]])
    return _SPARK_TYPES[text]
