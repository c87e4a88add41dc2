"""A pinned model bound to a table: which frame goes into the output, which into the quarantine."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as F
from pyspark.sql import types as T

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring import column_binding as binding
from dbx_aml.scoring import plan
from dbx_aml.scoring.column_binding import PREDICTION, quote
from dbx_aml.scoring.delta_table import Table, bytes_of, column_types, cores_of
from dbx_aml.scoring.guard import BAD, REASON, STRICT
from dbx_aml.scoring.pinned_model import PinnedModel, guarded, pin
from dbx_aml.scoring.resolved_request import SCORING, Batch, Recipe

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

log = logging.getLogger(__name__)

QUARANTINE = "_quarantine"
_RESULT = "_dbx_aml_result"
# Rows that are tried before a job starts: a model that fails on all of them is suspect.
_TRIED_ROWS = 64
# Rows on which the model's cost is measured where a shuffle may pay for itself.
_TIMED_ROWS = 1000
_SPARK_TYPES = {
    "boolean": T.BooleanType(),
    "int": T.IntegerType(),
    "bigint": T.LongType(),
    "float": T.FloatType(),
    "double": T.DoubleType(),
    "string": T.StringType(),
}

# Called with what is being done.
Report = Callable[[str], None]
# From a row of the model's columns to a struct of fields, names and Spark types.
Predict = Callable[["Column"], "Column"]
Fields = tuple[tuple[str, str], ...]


class Scorer:
    """A pinned model bound to an input table, ready to score batches of it.

    Args:
        spark: The session.
        recipe: What to do.
        report: Called with each step.
        model: The recipe's model where it is at hand; else it is downloaded.

    Raises:
        ScoringError: The model cannot be had, or does not fit the input table.
    """

    def __init__(
        self,
        spark: SparkSession,
        recipe: Recipe,
        report: Report = log.info,
        model: PinnedModel | None = None,
    ) -> None:
        self.recipe = recipe
        self.spark = spark
        self.report = report
        # Removed when the scorer is: Spark's workers may read it until then.
        self._folder = TemporaryDirectory(prefix="dbx_aml_")
        folder = Path(self._folder.name)
        self.model = model or pin(
            recipe.model_uri, recipe.tracking_uri, recipe.registry_uri, folder / "download"
        )
        columns = column_types(Table(recipe.input_table).read(spark))
        as_json = recipe.env_manager != "local"
        self.bound = binding.bind(self.model.inputs, columns, as_json=as_json)
        _, unfit = binding.unfit(self.bound)
        self._guard = guarded(self.model, unfit, folder / "guarded", recipe.env_manager)
        self._fields = binding.udf_fields(self.model.outputs)
        self._udfs: dict[tuple[Fields, bool], Predict] = {}

    def _udf(self, fields: Fields, *, strict: bool = False) -> Predict:
        """Return the guarded model as a Spark function that gives these fields of its result.

        Made when it is needed, once: on a cluster, making it sends the model to every worker.
        """
        import mlflow.pyfunc

        if (fields, strict) not in self._udfs:
            self._udfs[fields, strict] = mlflow.pyfunc.spark_udf(
                self.spark,
                str(self._guard),
                result_type=_struct(fields),
                env_manager=self.recipe.env_manager,
                model_config={STRICT: True} if strict else None,
            )
        return self._udfs[fields, strict]

    def _judged(self, rows: DataFrame) -> DataFrame:
        """Return rows with whether they are bad, and why."""
        return self._result(rows, self._udf(binding.REASON_FIELDS))[0]

    def _result(self, rows: DataFrame, udf: Predict) -> tuple[DataFrame, Observation]:
        """Return rows with the guarded model's result, and the counts seen when it is run.

        Observing is also what keeps Spark from moving a filter on the result below the model
        and so running it twice.
        """
        seen = Observation(f"dbx_aml_{uuid.uuid4().hex}")
        frame = rows.withColumn(_RESULT, udf(F.expr(binding.udf_argument(self.bound))))
        bad = F.sum(F.col(f"{_RESULT}.{BAD}").cast("bigint"))
        return frame.observe(seen, bad.alias(BAD)), seen

    def prepare(self, *, strict: bool) -> None:
        """Make what `good` needs, so that it is there when the rows are."""
        self._udf(self._fields, strict=strict)

    def good(
        self, rows: DataFrame, batch: Batch, *, strict: bool = False
    ) -> tuple[DataFrame, Observation]:
        """Return what goes into the output, and the counts seen when it is written.

        Args:
            rows: Of the input table.
            batch: Whose they are.
            strict: Writing ends with an error where the first rows of a worker are all bad.

        Shape: n rows -> n minus the bad rows; `output_columns`, `prediction`, `_scoring`.
        """
        return self._scored(rows, batch, self._udf(self._fields, strict=strict))

    def _scored(self, rows: DataFrame, batch: Batch, udf: Predict) -> tuple[DataFrame, Observation]:
        frame, seen = self._result(self._needed(rows), udf)
        frame = frame.where(~F.col(f"{_RESULT}.{BAD}")).select(
            *(F.col(quote(name)) for name in self.recipe.output_columns),
            F.expr(binding.prediction(self.model.outputs, _RESULT)).alias(PREDICTION),
            self._scoring(batch).alias(SCORING),
        )
        return frame, seen

    def bad(self, rows: DataFrame, batch: Batch) -> DataFrame:
        """Return what goes into the quarantine: bad rows, every input column, `_quarantine`."""
        frame = self._judged(rows)
        about = F.struct(
            F.col(f"{_RESULT}.{REASON}").alias("reason"),
            F.lit(batch.id).alias("batch_id"),
            F.lit(self.model.uri).alias("model_uri"),
            F.lit(batch.input_version).cast("bigint").alias("input_version"),
            _now().alias("quarantined_at"),
        )
        columns = [F.col(quote(name)) for name in rows.columns]
        return frame.where(F.col(f"{_RESULT}.{BAD}")).select(*columns, about.alias(QUARANTINE))

    def _needed(self, rows: DataFrame) -> DataFrame:
        names = dict.fromkeys([*self.recipe.output_columns, *(one.column for one in self.bound)])
        return rows.select(*(F.col(quote(name)) for name in names))

    def arranged(self, rows: DataFrame) -> tuple[DataFrame, int | None]:
        """Return the rows, just what `good` needs of them, in the partitions they are worth.

        And how many Arrow should hand over at once; None leaves it.
        """
        rows = self._needed(rows)
        cores, size = cores_of(self.spark), bytes_of(self.spark, rows)
        fewer = plan.fewer_partitions(size, cores)
        if fewer is None or cores is None or size is None:
            return rows, None
        batch = plan.rows_a_batch(size, cores, len(self.bound))
        if plan.may_shuffle(cores, size) and self.recipe.env_manager == "local":
            files = len(rows.inputFiles())
            if 0 < files < cores:
                cost = self._seconds_a_row(rows)
                more = plan.more_partitions(files, cores, rows.count(), size, cost)
                if more is not None:
                    return rows.repartition(more), batch
        return rows.coalesce(fewer), batch

    def _seconds_a_row(self, rows: DataFrame) -> float:
        """Return what the model costs a row here, measured on a few."""
        import mlflow.pyfunc

        argument = F.expr(binding.udf_argument(self.bound)).alias("row")
        sample = rows.limit(_TIMED_ROWS).select(argument).select("row.*").toPandas()
        model = mlflow.pyfunc.load_model(str(self._guard), suppress_warnings=True)
        model.predict(sample)
        started = time.perf_counter()
        model.predict(sample)
        return (time.perf_counter() - started) / max(len(sample), 1)

    def _scoring(self, batch: Batch) -> Column:
        # The batch first: it is the one field of these that Delta keeps statistics of.
        return F.struct(
            F.lit(batch.id).alias("batch_id"),
            F.lit(self.model.uri).alias("model_uri"),
            F.lit(self.model.name).cast("string").alias("model_name"),
            F.lit(self.model.version).cast("string").alias("model_version"),
            F.lit(self.model.run_id).cast("string").alias("model_run_id"),
            F.lit(batch.input_version).cast("bigint").alias("input_version"),
            _now().alias("scored_at"),
        )

    def try_on(self, rows: DataFrame) -> None:
        """Try the model on a few rows: one that fails on all would only write a bad table.

        Raises:
            ScoringError: The model fails on every row, of all.
        """
        few = self._needed_by_model(rows)
        tried = few.limit(_TRIED_ROWS).collect()
        if not tried:
            return
        sample = self.spark.createDataFrame(tried, few.schema)
        flags = self._judged(sample).select(f"{_RESULT}.{BAD}", f"{_RESULT}.{REASON}").collect()
        if all(bad for bad, _ in flags):
            self.need_a_good_row(rows, flags[0][1])

    def need_a_good_row(self, rows: DataFrame, reason: str) -> None:
        """Look for a row that the model scores, among all.

        Args:
            rows: Of the input table.
            reason: Why the first one is bad.

        Raises:
            ScoringError: There is none.
        """
        result = self._judged(self._needed_by_model(rows))
        if not result.where(~F.col(f"{_RESULT}.{BAD}")).head(1):
            raise ScoringError(
                f"model must score at least one row: got an error on every row, {reason}; "
                "correct the model or the rows, or pass max_quarantined_rows '100%' to quarantine "
                "all rows"
            )

    def _needed_by_model(self, rows: DataFrame) -> DataFrame:
        columns = dict.fromkeys(one.column for one in self.bound)
        return rows.select(*(F.col(quote(name)) for name in columns))

    def check_output(self, rows: DataFrame) -> list[str]:
        """Return the columns the output would gain; refuse one whose type would change.

        Raises:
            ScoringError: The output has a column of another type.
        """
        table = Table(self.recipe.output_table)
        if not table.exists(self.spark):
            return []
        nothing = Batch(id="", app_id="", app_version=0, input_version=None)
        # The types tell; the model itself is not asked.
        result = F.lit(None).cast(_struct(self._fields))
        frame, _ = self._scored(rows, nothing, lambda _: result)
        new = {field.name: field.dataType for field in frame.schema.fields}
        old = {field.name: field.dataType for field in table.read(self.spark).schema.fields}
        folded = {name.lower(): name for name in old}
        wrong = []
        for name, kind in new.items():
            known = old.get(name, old.get(folded.get(name.lower(), "")))
            if known is not None and not _same(known, kind):
                wrong.append(f"{name!r} is {known.simpleString()}, not {kind.simpleString()}")
        if wrong:
            raise ScoringError(
                f"output table must take the scored columns: got {table.name!r}, where "
                f"{'; '.join(wrong)}; write to another output_table, or choose output_columns"
            )
        return [name for name in new if name.lower() not in folded]


def _now() -> Column:
    return F.timestamp_micros(F.lit(int(datetime.now(UTC).timestamp() * 1e6)))


def _same(one: T.DataType, other: T.DataType) -> bool:
    """Return whether two types are equal but for nullability."""
    return one.simpleString() == other.simpleString()


def _struct(fields: Fields) -> T.StructType:
    return T.StructType([T.StructField(name, _spark_type(text)) for name, text in fields])


def _spark_type(kind: str) -> T.DataType:
    if kind.startswith("array<"):
        return T.ArrayType(_SPARK_TYPES[kind[len("array<") : -1]])
    return _SPARK_TYPES[kind]
