"""Score a table with a registered model: `score_table`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError, TooManyQuarantinedRowsError
from dbx_aml.local.spark import current_spark
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring import plan, stream
from dbx_aml.scoring.batch import Counts, publish
from dbx_aml.scoring.column_binding import PREDICTION, check_outputs
from dbx_aml.scoring.delta_table import SPARK_ERRORS, Table, one_line
from dbx_aml.scoring.model_udf import Scorer
from dbx_aml.scoring.pinned_model import differences, pin
from dbx_aml.scoring.request import Arguments, names, need
from dbx_aml.scoring.resolved_request import SCORING, Batch, Recipe, recipe_of
from dbx_aml.scoring.result import ScoringResult
from dbx_aml.scoring.spark_progress import Progress, watch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger(__name__)


def score_table(
    *,
    model_uri: str,
    input_table: str,
    output_table: str,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    quarantine_table: str | None = None,
    row_filter: str | None = None,
    output_columns: Sequence[str] | str | None = None,
    key_columns: Sequence[str] | str | None = None,
    write_mode: str = "append",
    replace_where: str | None = None,
    checkpoint_location: str | None = None,
    batch_id: str | None = None,
    max_quarantined_rows: str | int = "1%",
    env_manager: str = "local",
    dry_run: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> ScoringResult:
    """Score a table with a model: each row into the output or the quarantine, exactly once.

    An empty text means "not given", as notebook widgets have it.

    Args:
        model_uri: For example "models:/delay@champion"; an alias is resolved once, at the start.
        input_table: A table or view, for example "main.flights.new", or "delta.`/data/new`".
        output_table: Made if it does not exist.
        tracking_uri: MLflow's; default as MLflow resolves it.
        registry_uri: MLflow's; default as MLflow resolves it.
        quarantine_table: Default: the output's name with "_quarantine".
        row_filter: An SQL predicate on the input, for example "month = 10".
        output_columns: Input columns that go into the output; default all. A list, or names
            with commas between.
        key_columns: What names a row, for write_mode "merge".
        write_mode: "append", "incremental" (only what the checkpoint has not seen), "merge"
            (on `key_columns`) or "replace" (everything, or what `replace_where` says).
        replace_where: An SQL predicate on the output; all scored rows must satisfy it.
        checkpoint_location: For "incremental"; a path table has one beside it by default.
        batch_id: Default: derived from input table and version, pinned model, filter, output.
        max_quarantined_rows: A count or a percentage, for example 100 or "1%".
        env_manager: "local", or what MLflow's `spark_udf` takes.
        dry_run: Return the plan only; nothing is written.
        spark: Default: the active session, else a local one.
        progress: Called with what is being done, tasks done and tasks in all (0: unknown).

    Shape:
        n input rows -> n rows, each either in the output (`output_columns`, `prediction`,
        `_scoring`) or in the quarantine (all input columns, `_quarantine`). `prediction` has
        the type of the signature's output: a scalar, an array, or a struct of several.

    Raises:
        ModelUriError: The model URI names no model.
        ArgumentError: An argument breaks a rule, or does not go with another one.
        TooManyQuarantinedRowsError: More than `max_quarantined_rows` rows could not be scored; all
            rows are written then, these to the quarantine.
        ScoringError: The model or a table breaks a rule; nothing is written then.
    """
    started = time.monotonic()
    say = progress or _log_progress
    given = Arguments(
        input_table=Table(need("input_table", input_table)),
        output_table=Table(need("output_table", output_table)),
        quarantine_table=Table(quarantine_table) if quarantine_table else None,
        row_filter=row_filter or None,
        output_columns=names(output_columns),
        key_columns=names(key_columns) or (),
        write_mode=write_mode or "append",
        replace_where=replace_where or None,
        checkpoint_location=checkpoint_location or None,
        batch_id=batch_id or None,
        max_quarantined_rows=plan.tolerance(max_quarantined_rows),
        env_manager=env_manager or "local",
    )
    ModelUri.parse(need("model_uri", model_uri))
    say("starting Spark", 0, 0)
    spark = spark or current_spark()
    with TemporaryDirectory(prefix="dbx_aml_") as folder, watch(spark, say) as report:
        job = _Job(spark, given, model_uri, tracking_uri or None, registry_uri or None, report)
        result = job.run(Path(folder), dry_run, started)
    bad, read = result.rows_quarantined, result.rows_read
    # A batch that is there already is judged again: a retry must not turn a failed job green.
    if given.max_quarantined_rows.exceeded(bad, read):
        raise TooManyQuarantinedRowsError(
            f"quarantined rows must be at most {given.max_quarantined_rows.text}: got {bad} of "
            f"{read}, now in {result.quarantine_table}, the other {result.rows_scored} are in "
            f"{result.output_table}; look at the reasons, or raise max_quarantined_rows"
        )
    return result


class _Job:
    """One call of `score_table`."""

    def __init__(
        self,
        spark: SparkSession,
        given: Arguments,
        model_uri: str,
        tracking_uri: str | None,
        registry_uri: str | None,
        report: Callable[[str], None],
    ) -> None:
        self._spark = spark
        self._given = given
        self._model_uri = model_uri
        self._tracking_uri = tracking_uri
        self._registry_uri = registry_uri
        self._report = report

    def run(self, folder: Path, dry_run: bool, started: float) -> ScoringResult:
        given = self._given
        # A stream knows by itself how far it reads.
        is_stream = given.write_mode == "incremental" and not dry_run
        # The table's version is asked for while the model comes.
        with ThreadPoolExecutor(1) as pool:
            self._report("looking at the tables")
            asking = None if is_stream else pool.submit(given.input_table.version, self._spark)
            rows = self._input()
            self._report("resolving the model")
            model = pin(self._model_uri, self._tracking_uri, self._registry_uri, folder / "model")
            check_outputs(model.outputs)
            version = asking.result() if asking else None
        recipe = recipe_of(given, model.uri, self._tracking_uri, self._registry_uri, rows.columns)
        if given.env_manager == "local":
            different = differences(model.folder)
            if different:
                log.warning(
                    "model requirements differ from this machine's: %s", "; ".join(different)
                )
        scorer = Scorer(self._spark, recipe, self._report, model)
        gained = scorer.check_output(rows)
        if gained and given.output_table.exists(self._spark):
            log.warning("output table gains columns=%s", gained)
        if dry_run:
            status, counts = "planned", None
        elif is_stream:
            status, counts = self._incremental(scorer)
            if counts is None:
                version = given.input_table.version(self._spark)
        else:
            status, counts = self._batch(scorer, version)
        shown = counts.commit if counts else {}
        return ScoringResult(
            status=status,
            model_uri=shown.get("model_uri", model.uri),
            model_name=shown.get("model_name", model.name),
            model_version=shown.get("model_version", model.version),
            model_run_id=shown.get("model_run_id", model.run_id),
            input_table=given.input_table.name,
            input_version=shown.get("input_version", version),
            output_table=given.output_table.name,
            output_version=counts.output_version if counts else None,
            quarantine_table=given.quarantine.name,
            write_mode=given.write_mode,
            batch_id=shown.get("batch_id"),
            rows_read=counts.scored + counts.quarantined if counts else 0,
            rows_scored=counts.scored if counts else 0,
            rows_quarantined=counts.quarantined if counts else 0,
            seconds=time.monotonic() - started,
            plan=self._plan(scorer, version, gained) if dry_run else None,
        )

    def _input(self) -> DataFrame:
        """Return the input's rows, filtered; refuse what cannot be read."""
        table, row_filter = self._given.input_table, self._given.row_filter
        try:
            rows = table.read(self._spark)
        except SPARK_ERRORS as err:
            raise ScoringError(
                f"input table must exist and be readable: got {table.name!r}; {one_line(err)}"
            ) from err
        if self._given.write_mode == "incremental" and not table.has_versions(self._spark):
            raise ScoringError(
                "input table must be a Delta table for write_mode 'incremental': got "
                f"{table.name!r}, which has no versions; use 'append' with a batch_id"
            )
        try:
            filtered = rows.where(row_filter) if row_filter else rows
            filtered.schema  # noqa: B018 - with Spark Connect, this is when it is looked at
        except SPARK_ERRORS as err:
            raise ScoringError(
                f"row_filter must be an SQL predicate on the input: got {row_filter!r}; "
                f"{one_line(err)}"
            ) from err
        return filtered

    def _batch_id(self, recipe: Recipe, version: int | None) -> str:
        given = self._given
        if given.batch_id:
            return given.batch_id
        if version is None:
            raise ScoringError(
                f"batch_id must be given for an input without versions: got {recipe.input_table!r}"
                "; pass one that names these rows, for example their date"
            )
        unstable = plan.unstable_functions(given.row_filter or "")
        if unstable:
            raise ScoringError(
                f"batch_id must be given where row_filter changes by itself: got {unstable} in "
                f"{given.row_filter!r}; pass one that names these rows, for example their date"
            )
        return plan.batch_id(
            {
                "model_uri": recipe.model_uri,
                "input_table": recipe.input_table,
                "input_version": version,
                "row_filter": recipe.row_filter,
                "output_table": recipe.output_table,
                "write_mode": recipe.write_mode,
                "replace_where": recipe.replace_where,
            }
        )

    def _batch(self, scorer: Scorer, version: int | None) -> tuple[str, Counts]:
        batch_id = self._batch_id(scorer.recipe, version)
        batch = Batch(
            id=batch_id, app_id=f"dbx_aml/{batch_id}", app_version=1, input_version=version
        )
        counts = publish(scorer, self._rows_at, batch)
        return ("scored" if counts.written else "already_scored"), counts

    def _rows_at(self, version: int | None) -> DataFrame:
        rows = self._given.input_table.read(self._spark, version)
        return rows.where(self._given.row_filter) if self._given.row_filter else rows

    def _incremental(self, scorer: Scorer) -> tuple[str, Counts | None]:
        batches = stream.run(self._spark, scorer, self._given.checkpoint, self._report)
        if not batches:
            return "no_new_rows", None
        first, last = (str(b.commit["batch_id"]) for b in (batches[0], batches[-1]))
        if len(batches) > 1:
            last = f"{first}-{last.rpartition('/')[2]}"
        return "scored", replace(
            batches[-1],
            scored=sum(b.scored for b in batches),
            quarantined=sum(b.quarantined for b in batches),
            commit={**batches[-1].commit, "batch_id": last},
        )

    def _plan(self, scorer: Scorer, version: int | None, gained: list[str]) -> dict[str, Any]:
        """Return the plan of a dry run: what would be read, bound and written."""
        given = self._given
        rows = self._rows_at(version)
        data: dict[str, Any] = {
            "columns": {
                one.name: f"{one.column} {one.src_type} -> {one.type}" for one in scorer.bound
            },
            "columns_left_unread": [
                name
                for name in rows.columns
                if name not in scorer.recipe.output_columns
                and name not in {one.column for one in scorer.bound}
            ],
            "output_columns": [*scorer.recipe.output_columns, PREDICTION, SCORING],
            "output_gains_columns": gained,
            "max_quarantined_rows": given.max_quarantined_rows.text,
        }
        if given.write_mode == "incremental":
            done = stream.last_offset(self._spark, given.checkpoint)
            data["checkpoint_location"] = given.checkpoint
            data["input_versions_to_read"] = (
                "all" if done is None else f"{done + 1} to {version}" if done != version else "none"
            )
        else:
            data["batch_id"] = self._batch_id(scorer.recipe, version)
            data["rows_to_read"] = rows.count()
            data["files_to_read"] = len(rows.inputFiles())
        return data


def _log_progress(step: str, done: int, total: int) -> None:
    if not total:
        log.info("%s", step)
