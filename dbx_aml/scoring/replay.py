"""Score an earlier batch again, and compare the rows: `replay_batch`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ScoringError, TableNotFoundError
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.redact import redact_uri
from dbx_aml._common.text import plural, sql_literal
from dbx_aml.local.spark import current_spark
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_files import registry_uri_of
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.added_rows import read_added_rows
from dbx_aml.scoring.batch import find_removal
from dbx_aml.scoring.bind import BoundRequest, PinnedUris, bind_rows, pin_uris
from dbx_aml.scoring.changes import last_changes, read_changes
from dbx_aml.scoring.column_binding import PREDICTION
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.environments import environment_differences
from dbx_aml.scoring.ledger import Ledger, LedgerEntry
from dbx_aml.scoring.output_rows import IS_QUARANTINED, needed_columns, scored_rows
from dbx_aml.scoring.partitions import partition_rows
from dbx_aml.scoring.pinned_model import PinnedModel
from dbx_aml.scoring.plan import Trigger, parse_quarantine_limit
from dbx_aml.scoring.request import BatchFacts, ResolvedRequest, ScoringRequest, require_value
from dbx_aml.scoring.row_comparison import compare_rows
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line
from dbx_aml.scoring.spark_progress import Progress, watch_progress
from dbx_aml.scoring.spark_settings import larger_arrow_batches
from dbx_aml.scoring.staging import drop_staging, staging_table, write_staging
from dbx_aml.scoring.table_identity import TableIdentity, identify_table, read_versions
from dbx_aml.scoring.unasked_rows import rows_to_ask

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Operations of the output's history that put other rows into the place of a batch's rows.
_REWRITES = ("MERGE", "WRITE", "CREATE OR REPLACE")
# Texts in Spark's errors about a version without its log, or without its files.
_LOG_IS_GONE = re.compile(
    r"DELTA_VERSION_NOT_FOUND|DELTA_CANNOT_RECREATE|DELTA_TRUNCATED_TRANSACTION_LOG|VersionNotFound"
    r"|LogFileNotFound|no commits|not recreatable|Cannot time travel Delta table"
)
_FILES_ARE_GONE = re.compile(
    r"FILE_NOT_EXIST|DELTA_FILE_NOT_FOUND|FileNotFoundException|time travel beyond"
)


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Result of `replay_batch`.

    Args:
        output_table: Output table as it was named.
        batch: Number of the batch.
        batch_id: Name of the batch in the ledger.
        model_uri: URI of the model that scored the batch, and scored it again.
        input_table: Input table of the batch.
        input_version: Delta version that was read.
        rows_equal: Rows of the batch with the same prediction.
        rows_different: Rows of the batch with another prediction.
        rows_missing: Rows that the model scores now and the output does not have.
        rows_more: Rows of the batch in the output that the model does not score now.
        largest_difference: Largest absolute difference of two predictions; None where they are no
            numbers, or where none differs.
        examples: At most 5 rows that are not equal: the columns, "stored" and "replayed", each a
            list of predictions.
        rows_quarantined: Rows that the model cannot score now.
        rows_quarantined_before: Rows of the batch in the quarantine, as the ledger has them.
        environment_differences: Texts about Python, the runtime and packages that have other
            versions than when the batch was scored; None where the ledger does not have them.
        seconds: Time from start to end.
    """

    output_table: str
    batch: int
    batch_id: str
    model_uri: str
    input_table: str
    input_version: int
    rows_equal: int
    rows_different: int
    rows_missing: int
    rows_more: int
    largest_difference: float | None
    examples: list[dict[str, Any]]
    rows_quarantined: int
    rows_quarantined_before: int
    environment_differences: list[str] | None
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether the output has exactly the rows and predictions of the replay."""
        unequal = self.rows_different + self.rows_missing + self.rows_more
        return unequal == 0 and self.rows_quarantined == self.rows_quarantined_before

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, ready for JSON."""
        return {**asdict(self), "is_equal": self.is_equal, "seconds": round(self.seconds, 3)}


def replay_batch(
    *,
    output_table: str,
    batch: int | str,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> ReplayResult:
    """Score an earlier batch again, and compare the result with the rows in the output table.

    The ledger tells the model version, the version of the input, filter and columns. The output
    table is read only: the new rows go into a temporary table, which is dropped at the end.

    Args:
        output_table: Output table of `score_table`, for example "main.flights.scored".
        batch: Number of the batch (`_scoring.batch`), or its batch id.
        tracking_uri: MLflow tracking URI. Default: MLflow's current one.
        registry_uri: MLflow registry URI. Default: MLflow's current one.
        spark: Session. Default: the active one, else a local one.
        progress: Function that receives a step's name, its tasks done and all its tasks (0 if
            unknown).

    Raises:
        TableNotFoundError: The input table or the output table does not exist.
        ModelNotFoundError: The registry no longer has the model version.
        ScoringError: The batch cannot be scored again: the input is another table or no longer has
            the version, the model's files have changed, or other batches have replaced rows of
            this batch.
    """
    start_time = time.monotonic()
    output = Table(require_value("output_table", output_table))
    report_progress = progress or (lambda step, done, total: None)
    spark = spark or current_spark()
    with (
        TemporaryDirectory(prefix="dbx_aml_") as folder,
        watch_progress(spark, report_progress) as report,
    ):
        report("reading the ledger")
        entry, older_entries = _find_entry(spark, output, str(batch))
        stored = _stored_rows(spark, output, entry)
        source = _check_input(spark, entry)
        report("resolving the model")
        client = create_client(tracking_uri or None, registry_uri or None)
        _check_registry(entry, registry_uri_of(client))
        request = _request(entry, output)
        uris = replace(PinnedUris.of_batch(entry.facts), challenger=None)
        model, _, segments = pin_uris(uris, client, Path(folder), request.environment)
        _check_model(entry, model)
        resolved = ResolvedRequest(
            request=request,
            model=model,
            tracking_uri=client.tracking_uri,
            registry_uri=registry_uri_of(client),
            output_columns=tuple(entry.facts.identity["output_columns"]),
            input=source,
            output=None,
            quarantine=None,
            quarantine_name=entry.facts.quarantine_table,
            input_version=entry.facts.input_version_to,
            time_zone=str(spark.conf.get("spark.sql.session.timeZone")),
            run=time.time_ns() // 1000,
            segments=segments,
        )
        _check_time_zone(entry, resolved.time_zone)
        try:
            rows = _read_rows(spark, entry, source, older_entries)
            bound = bind_rows(spark, resolved, rows, report)
        except SPARK_ERRORS as err:
            raise _unreadable(spark, entry, err) from err
        return _compare(bound, rows, stored, entry, start_time)


def _compare(
    bound: BoundRequest, rows: DataFrame, stored: DataFrame, entry: LedgerEntry, start_time: float
) -> ReplayResult:
    """Score the rows into a temporary table, and compare it with the rows of the output."""
    spark, output, facts = bound.spark, bound.request.output_table, entry.facts
    staging = staging_table(spark, output, bound.resolved.run)
    partitioned, arrow_rows = partition_rows(bound, needed_columns(bound, rows))
    bound.report("scoring")
    try:
        with larger_arrow_batches(spark, arrow_rows):
            write_staging(spark, staging, bound.model_udf.with_result(partitioned))
        staged = staging.read(spark)
        rows_read = staged.count()
        if rows_read != entry.rows_read:
            raise ScoringError(
                f"rows of the batch must be read as they were: got {plural(rows_read, 'row')} of "
                f"version {facts.input_version_to} of {facts.input_table}, where the batch had "
                f"{entry.rows_read}; the commits of the input no longer tell its rows"
            )
        bound.report("comparing")
        compared = compare_rows(
            stored,
            scored_rows(bound, staged, facts),
            bound.resolved.output_columns,
        )
        quarantined = staged.where(IS_QUARANTINED).count()
    except ScoringError as err:
        if isinstance(err.__cause__, SPARK_ERRORS):
            raise _unreadable(spark, entry, err.__cause__, otherwise=err) from err
        raise
    finally:
        drop_staging(spark, staging)
    environment = _plan(entry).get("environment")
    now = dict(bound.resolved.model.environment)
    return ReplayResult(
        output_table=output.name,
        batch=facts.batch,
        batch_id=facts.batch_id,
        model_uri=facts.model_uri,
        input_table=facts.input_table,
        input_version=int(facts.input_version_to or 0),
        **asdict(compared),
        rows_quarantined=quarantined,
        rows_quarantined_before=entry.rows_quarantined,
        environment_differences=(
            None if environment is None else environment_differences(environment, now)
        ),
        seconds=time.monotonic() - start_time,
    )


def _request(entry: LedgerEntry, output: Table) -> ScoringRequest:
    """Return a request that scores the rows of a batch; where they are written is no part of it."""
    facts = entry.facts
    return ScoringRequest(
        model_uri=ModelUri.parse(facts.model_uri),
        tracking_uri=None,
        registry_uri=None,
        input_table=Table(facts.input_table),
        output_table=output,
        quarantine_table=Table(facts.quarantine_table),
        row_filter=facts.row_filter,
        output_columns=tuple(facts.identity["output_columns"]),
        key_columns=(),
        write_mode="append",
        replace_where=None,
        checkpoint_location=None,
        trigger=Trigger(),
        batch_id=facts.batch_id,
        max_quarantined_rows=parse_quarantine_limit("100%"),
        environment=_plan(entry).get("model_environment", "local"),
        rescore=False,
        dry_run=False,
    )


def _plan(entry: LedgerEntry) -> Mapping[str, Any]:
    plan = parse_json(entry.plan or "{}")
    return plan if isinstance(plan, dict) else {}


# What the replay needs


def _find_entry(
    spark: SparkSession, output: Table, name: str
) -> tuple[LedgerEntry, list[LedgerEntry]]:
    """Return the batch of a number or a batch id, and the batches before it, newest first."""
    identity = identify_table(spark, output)
    if identity is None:
        raise TableNotFoundError(f"output table must exist and be readable: got {output.name!r}")
    literal = sql_literal(name)
    ledger = Ledger(spark, output, identity.id)
    entries = ledger.read(f"CAST(batch AS STRING) = {literal} OR batch_id = {literal}")
    found = [entry for entry in entries if name in (str(entry.facts.batch), entry.facts.batch_id)]
    if not found:
        raise ScoringError(
            f"batch must be in the ledger of the output table: got {name!r}, which "
            f"{ledger.table.name} does not have; 'dbx-aml batches' lists the batches"
        )
    entry = found[0]
    if entry.facts.write_mode == "incremental":
        # The micro-batch before it may be older than the batches that the ledger reads.
        query_id, _, number = entry.facts.batch_id.rpartition("/")
        before = f"batch < {entry.facts.batch}"
        if int(number):
            before = f"batch_id = {sql_literal(f'{query_id}/{int(number) - 1}')}"
        entries = ledger.read(before)
    return entry, [other for other in entries if other.facts.batch < entry.facts.batch]


def _stored_rows(spark: SparkSession, output: Table, entry: LedgerEntry) -> DataFrame:
    """Return the output's rows of a batch; refuse one of which other batches have replaced rows.

    Deleted rows are no error: the replay counts them as missing. Each later batch of `follow`
    replaces rows, so its rows are read from the version that it wrote.
    """
    follows = entry.facts.write_mode == "follow"
    names = [*entry.facts.identity["output_columns"], PREDICTION]
    try:
        rows = output.read(spark, entry.output_version if follows else None)
        missing_names = [name for name in names if name not in rows.columns]
        if missing_names:
            raise ScoringError(
                f"output table must have the columns of the batch: got {output.name!r} without "
                f"{missing_names}"
            )
        rows = rows.where(f"_scoring.batch = {entry.facts.batch}")
        count = rows.count()
    except SPARK_ERRORS as err:
        raise ScoringError(
            "output table must be readable, for write_mode 'follow' in the version that the batch "
            f"wrote: got version {entry.output_version} of {output.name}; {spark_error_line(err)}; "
            "the table's property delta.deletedFileRetentionDuration keeps files longer"
        ) from err
    if follows or count >= entry.rows_scored:
        return rows
    removal = find_removal(spark, output, entry)
    if removal is not None and removal.operation.startswith(_REWRITES):
        raise ScoringError(
            f"rows of the batch must be in the output: got {count} of {entry.rows_scored} in "
            f"{output.name}, since version {removal.version} ({removal.operation}) wrote others in "
            "their place; replay the batch that wrote them"
        )
    return rows


def _check_input(spark: SparkSession, entry: LedgerEntry) -> TableIdentity:
    """Return the identity of the batch's input; refuse another table of the same name."""
    facts = entry.facts
    if facts.input_id is None or facts.input_version_to is None:
        raise ScoringError(
            f"input of the batch must be a Delta table: got {facts.input_table!r}, which has no "
            "versions, so its rows of that time are unknown"
        )
    table = Table(facts.input_table)
    source = identify_table(spark, table)
    if source is None:
        raise TableNotFoundError(
            f"input table of the batch must exist and be readable: got {facts.input_table!r}"
        )
    if source.id != facts.input_id:
        raise ScoringError(
            f"input must be the table that the batch read: got {facts.input_table!r} with id "
            f"{source.id}, where the batch read id {facts.input_id}; the table was dropped and "
            "made again"
        )
    return read_versions(spark, table, source)


def _check_registry(entry: LedgerEntry, registry_uri: str) -> None:
    batch_uri = entry.facts.identity.get("registry_uri")
    if batch_uri is not None and batch_uri != redact_uri(registry_uri):
        raise ScoringError(
            f"registry_uri must be the one of the batch: got {redact_uri(registry_uri)!r}, where "
            f"the batch had {batch_uri!r}; pass that registry_uri"
        )


def _check_model(entry: LedgerEntry, model: PinnedModel) -> None:
    batch_files = _plan(entry).get("model_files", model.files)
    if (model.content, model.files) == (entry.facts.identity.get("model_content"), batch_files):
        return
    raise ScoringError(
        f"model must have the files that scored the batch: got {model.uri!r}, whose digest was "
        f"{batch_files} and is {model.files}; restore the files, or score with another version"
    )


def _check_time_zone(entry: LedgerEntry, time_zone: str) -> None:
    batch_zone = entry.facts.identity.get("time_zone")
    if batch_zone not in (None, time_zone):
        raise ScoringError(
            f"time zone of the session must be the one of the batch: got {time_zone!r}; set "
            f"spark.sql.session.timeZone to {batch_zone!r}"
        )


# Rows


def _read_rows(
    spark: SparkSession, entry: LedgerEntry, source: TableIdentity, older_entries: list[LedgerEntry]
) -> DataFrame:
    """Return the rows of the batch, filtered."""
    facts, table = entry.facts, Table(entry.facts.input_table)
    version = int(facts.input_version_to or 0)
    if facts.previous_batch is not None:
        first_version = int(facts.input_version_from or 0)
        changes = _filter(read_changes(spark, table, first_version, version), facts)
        rows = last_changes(changes, facts.identity["stream"]["key_columns"])
        return rows_to_ask(rows).select(*table.read(spark, version).columns)
    if facts.write_mode == "incremental":
        before = _batch_before(entry, older_entries)
        if before is not None:
            first_version = int(before.facts.input_version_to or 0) + 1
            rows = _filter(read_added_rows(spark, table, first_version, version), facts)
            is_first = facts.batch_id.endswith("/0")
            if not is_first or rows.count() == entry.rows_read:
                return rows
    # The newest version has the same rows, if no commit has changed them since. VACUUM never
    # removes its files.
    is_same = source.data_version == facts.identity.get("input_data_version")
    newest = source.version if is_same and source.data_version is not None else version
    return _filter(table.read(spark, newest), facts)


def _filter(rows: DataFrame, facts: BatchFacts) -> DataFrame:
    return rows.where(facts.row_filter) if facts.row_filter else rows


def _batch_before(entry: LedgerEntry, older_entries: list[LedgerEntry]) -> LedgerEntry | None:
    """Return the micro-batch before another; None for the first one of a stream.

    A stream whose checkpoint was lost goes on after the newest batch of the stream before it, or
    starts again, if the user said so.

    Raises:
        ScoringError: The ledger does not tell which rows the micro-batch has.
    """
    facts = entry.facts
    query_id, _, number = facts.batch_id.rpartition("/")
    if int(number):
        batch_id = f"{query_id}/{int(number) - 1}"
        before = next((e for e in older_entries if e.facts.batch_id == batch_id), None)
        if before is None:
            raise ScoringError(
                f"micro-batch must have the one before it in the ledger: got {facts.batch_id!r} "
                f"without {batch_id!r}; its first version is unknown"
            )
    else:
        stream = facts.identity.get("stream")
        before = next((e for e in older_entries if e.facts.identity.get("stream") == stream), None)
    for other in (before, entry):
        if other is not None and other.facts.identity.get("is_partial_version"):
            raise ScoringError(
                f"micro-batch must hold whole versions of its input: got {facts.batch_id!r}, and "
                f"{other.facts.batch_id!r} ends within version {other.facts.input_version_to}, "
                "which has more files than a micro-batch takes; name another batch"
            )
    return before


def _unreadable(
    spark: SparkSession, entry: LedgerEntry, err: Exception, otherwise: ScoringError | None = None
) -> ScoringError:
    """Return the error about a version that Spark cannot read, with the dates of the reason."""
    facts = entry.facts
    text = f"{err}\n{getattr(err, '_stackTrace', '') or ''}"
    start = (
        f"input must still have the version that the batch read: got version "
        f"{facts.input_version_to} of {facts.input_table}, read on {_date(facts.batch)},"
    )
    table = Table(facts.input_table)
    if _LOG_IS_GONE.search(text):
        oldest = table.history(spark, None)[-1]
        return ScoringError(
            f"{start} and its history begins with version {oldest.version} of "
            f"{_date(int(oldest.timestamp_s * 1e6))}; the table's property "
            "delta.logRetentionDuration keeps versions longer"
        )
    if _FILES_ARE_GONE.search(text):
        vacuums = [c for c in table.history(spark) if c.operation.startswith("VACUUM")]
        when = f", at last on {_date(int(vacuums[0].timestamp_s * 1e6))}" if vacuums else ""
        return ScoringError(
            f"{start} whose files VACUUM has removed{when}; the table's property "
            "delta.deletedFileRetentionDuration keeps files longer"
        )
    return otherwise or ScoringError(
        f"input table must be readable: got {facts.input_table!r}; {spark_error_line(err)}"
    )


def _date(micros: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(micros / 1e6))
