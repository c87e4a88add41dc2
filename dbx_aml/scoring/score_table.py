"""Score a table with a model: `score_table`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from dbx_aml._common.errors import TooManyQuarantinedRowsError
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.log import get_logger
from dbx_aml.local.spark import current_spark
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring import plan, stream
from dbx_aml.scoring.batch import batch_facts, score_batch
from dbx_aml.scoring.batch_identity import batch_identity
from dbx_aml.scoring.bind import BoundRequest, bind_request
from dbx_aml.scoring.checkpoint import last_offset, version_of_offset
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.estimate import describe_estimate, estimate_request
from dbx_aml.scoring.follow import follow_input, newest_first
from dbx_aml.scoring.ledger import LedgerEntry
from dbx_aml.scoring.output_rows import needed_columns, output_expressions
from dbx_aml.scoring.partitions import choose_partitions
from dbx_aml.scoring.request import (
    ScoringRequest,
    parse_input,
    require_value,
    split_names,
)
from dbx_aml.scoring.resolve import resolve_request
from dbx_aml.scoring.result import ScoringResult, ScoringStatus
from dbx_aml.scoring.spark_progress import Progress, watch_progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

# Operations of an input's history that add rows.
_ADDS_ROWS = ("WRITE", "STREAMING UPDATE", "MERGE")
_DEFAULT_LIMIT = "1%"


def score_table(
    *,
    output_table: str,
    input_table: str = "",
    model_uri: str | None = None,
    segment_column: str | None = None,
    segment_models: str | Mapping[str, str] | None = None,
    source: str = "table",
    topic: str = "",
    bootstrap_servers: str = "",
    connection_secret: str = "",
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    quarantine_table: str | None = None,
    row_filter: str | None = None,
    output_columns: Sequence[str] | str | None = None,
    key_columns: Sequence[str] | str | None = None,
    write_mode: plan.WriteMode = "append",
    replace_where: str | None = None,
    challenger_uri: str | None = None,
    checkpoint_location: str | None = None,
    trigger: str = "available-now",
    batch_id: str | None = None,
    max_quarantined_rows: str | int = _DEFAULT_LIMIT,
    environment: plan.Environment = "local",
    price_per_core_hour: str | float | None = None,
    rescore: bool = False,
    dry_run: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
) -> ScoringResult:
    """Score a table with a model: each row into the output or the quarantine, exactly once.

    An empty text counts as an argument that was not given, as notebook widgets have it.

    Args:
        input_table: Table or view, for example "main.flights.new", or "delta.`/data/new`".
        output_table: Table for the predictions; it is created if it does not exist.
        model_uri: Model, for example "models:/delay@champion"; an alias is resolved once, at the
            start. With `segment_models`: the model for the rows of every other segment, which go to
            the quarantine without it.
        segment_column: Column whose values choose the model of a row, for example "region".
        segment_models: Model URI of each segment: a JSON file such as {"north": "models:/n@a"}, a
            table with the columns segment and model_uri, or a URI with the column in braces, for
            example "models:/delay_{region}@champion". In Python also a dictionary.
        source: "table", or "kafka" for the messages of a Kafka topic or an event hub, in the place
            of `input_table`. The value of a message is a JSON object with the model's columns.
        topic: Topic, for source "kafka".
        bootstrap_servers: Hosts of the brokers, for example "ana.servicebus.windows.net:9093".
        connection_secret: Place of the login, "<scope>/<key>" of a Databricks secret or
            "env:<variable>": a connection string of an event hub, or a line of Kafka's
            `sasl.jaas.config`. Default: none.
        tracking_uri: MLflow tracking URI. Default: MLflow's current one.
        registry_uri: MLflow registry URI. Default: MLflow's current one.
        quarantine_table: Table for the rows that cannot be scored. Default: the output's name
            with "_quarantine".
        row_filter: SQL predicate on the input, for example "month = 10".
        output_columns: Input columns for the output table, as a list or as one text with commas.
            Default: all.
        key_columns: Columns that identify a row, for write_mode "merge" or "follow".
        write_mode: "append", "incremental" (only the rows that the checkpoint has not seen),
            "merge" (on `key_columns`), "replace" (all rows, or the rows of `replace_where`) or
            "follow" (inserts, updates and deletes of the input, on `key_columns`).
        replace_where: SQL predicate on the output that every scored row must satisfy, for
            write_mode "replace".
        challenger_uri: Second model for the same rows, for example "models:/delay@challenger"; its
            predictions are in the column `_challenger`, and how far both agree is in the ledger.
        checkpoint_location: Folder, for write_mode "incremental" or "follow". Default for an
            output table that is named by its path: that path with "_checkpoint".
        trigger: "available-now" (score what there is, then end), or the interval of a stream that
            runs until it is stopped, for example "30 seconds"; not on serverless compute.
        batch_id: Name of the batch. Default: derived from what decides the rows: the pinned model's
            content, the input's id and the version of its data, filter, columns and write mode.
        max_quarantined_rows: Count or percentage, for example 100 or "1%".
        environment: Packages and Python that the model runs with: "local" for this machine's,
            "model" for the model's own, "auto" for the model's own if this machine's differ in
            something that the model's flavor depends on. It is decided for each model: for the
            challenger and the models of segments, too.
        price_per_core_hour: Price of an hour of one core, for the cost in the plan of a dry run.
        rescore: Whether to score a batch again whose rows were removed, or whose batch id named
            other rows, in its place. For write_mode "incremental": whether a new checkpoint scores
            all rows, though the output has rows of this input. For "follow": whether all rows
            are scored again, in the place of what both tables have.
        dry_run: Whether to return the plan only and write nothing. The model is timed on up to
            10,000 rows, for at most 5 seconds.
        spark: Session. Default: the active one, else a local one.
        progress: Function that receives a step's name, its tasks done and all its tasks (0 if
            unknown).

    Shape:
        n input rows -> n rows, each either in the output (`output_columns`, `prediction`,
        `_scoring`) or in the quarantine (all input columns, `_quarantine`). `prediction` has
        the type of the signature's output: a scalar, an array, or a struct of several. With a
        challenger, the output has `_challenger: struct<model_version int, prediction, error
        string>`, too: a row that only the challenger cannot score is in the output.

    Raises:
        ModelUriError: The model URI names no model, or one that may change.
        ArgumentError: An argument breaks a rule, or excludes another argument.
        TableNotFoundError: The input table does not exist, or the user may not read it.
        ModelNotFoundError: The registry has no such model, version or alias.
        SchemaMismatchError: Columns, types or signature do not fit together.
        NoScorableRowError: The model fails on every row.
        PackagesError: The packages of the model's environment cannot be resolved or installed.
        ProgramError: uv is not installed, which the model's environment needs.
        ScoringError: Another rule is broken. Nothing is written after any of these errors.
        TooManyQuarantinedRowsError: More than `max_quarantined_rows` rows could not be scored.
            Both tables are written, these rows to the quarantine.
    """
    start_time = time.monotonic()
    price = plan.parse_price(price_per_core_hour)
    output = Table(require_value("output_table", output_table))
    request = ScoringRequest(
        model_uri=ModelUri.parse(model_uri) if model_uri else None,
        tracking_uri=tracking_uri or None,
        registry_uri=registry_uri or None,
        input_table=parse_input(
            source or "table", input_table, topic, bootstrap_servers, connection_secret
        ),
        output_table=output,
        quarantine_table=Table(quarantine_table or output.sibling("quarantine").name),
        row_filter=row_filter or None,
        output_columns=split_names(output_columns),
        key_columns=split_names(key_columns) or (),
        write_mode=write_mode or "append",
        replace_where=replace_where or None,
        checkpoint_location=checkpoint_location or None,
        trigger=plan.parse_trigger(trigger or "available-now"),
        batch_id=batch_id or None,
        max_quarantined_rows=plan.parse_quarantine_limit(
            _DEFAULT_LIMIT if max_quarantined_rows == "" else max_quarantined_rows
        ),
        environment=environment or "local",
        rescore=rescore,
        dry_run=dry_run,
        challenger_uri=ModelUri.parse(challenger_uri) if challenger_uri else None,
        segment_column=segment_column or None,
        segment_models=segment_models or None,
    )
    report_progress = progress or _log_progress
    report_progress("starting Spark", 0, 0)
    spark = spark or current_spark(kafka=source == "kafka")
    with (
        TemporaryDirectory(prefix="dbx_aml_") as folder,
        watch_progress(spark, report_progress) as report,
    ):
        resolved = resolve_request(spark, request, Path(folder) / "model", report)
        bound = bind_request(spark, resolved, report)
        if dry_run:
            return replace(_result(bound, "planned", start_time, []), plan=_plan(bound, price))
        if request.is_stream:
            return _stream_result(bound, start_time)
        return _batch_result(bound, start_time)


def _batch_result(bound: BoundRequest, start_time: float) -> ScoringResult:
    resolved = bound.resolved
    versions = resolved.input_version, resolved.input_version
    facts = batch_facts(bound, _batch_id(bound), resolved.run, versions)
    written = score_batch(bound, facts, partial(_read_rows, bound))
    status: ScoringStatus = "scored" if written.is_new else "already_scored"
    result = _result(bound, status, start_time, [written.entry])
    result = replace(result, rows_removed=written.rows_removed, removed_by=written.removed_by)
    _check_quarantine_limit(bound.request, result)
    return result


def _stream_result(bound: BoundRequest, start_time: float) -> ScoringResult:
    if bound.request.write_mode == "follow":
        streamed = follow_input(bound, partial(_read_rows, bound))
    else:
        streamed = stream.score_new_rows(bound)
    entries = streamed.entries
    status: ScoringStatus = "scored" if entries else "no_new_rows"
    result = _result(bound, "stopped" if streamed.is_stopped else status, start_time, entries)
    result = replace(result, rows_removed=streamed.rows_removed)
    if not entries:
        version = bound.request.input_table.version(bound.spark)
        result = replace(result, input_version=version)
    # A run that failed for too many such rows does not turn green by being started again.
    total = _result(bound, "scored", start_time, [*streamed.pending, *entries])
    try:
        _check_quarantine_limit(bound.request, total)
    except TooManyQuarantinedRowsError:
        stream.mark_runs(bound, streamed, is_over_limit=True)
        raise
    stream.mark_runs(bound, streamed, is_over_limit=False)
    return result


def _result(
    bound: BoundRequest, status: ScoringStatus, start_time: float, entries: Sequence[LedgerEntry]
) -> ScoringResult:
    """Return the result; for written batches with the facts of the newest one."""
    request, model = bound.request, bound.resolved.model
    newest = entries[-1] if entries else None
    facts = newest.facts if newest else None
    batch_id = facts.batch_id if facts else None
    if len(entries) > 1:
        batch_id = f"{entries[0].facts.batch_id}-{str(batch_id).rpartition('/')[2]}"
    return ScoringResult(
        status=status,
        model_uri=facts.model_uri if facts else model.uri,
        model_name=facts.model_name if facts else model.name,
        model_version=facts.model_version if facts else model.version,
        model_run_id=facts.model_run_id if facts else model.run_id,
        input_table=request.input_table.name,
        input_version=facts.input_version_to if facts else bound.resolved.input_version,
        output_table=request.output_table.name,
        output_version=newest.output_version if newest else None,
        quarantine_table=request.quarantine_table.name,
        write_mode=request.write_mode,
        batch=facts.batch if facts else None,
        batch_id=batch_id,
        rows_read=sum(entry.rows_read for entry in entries),
        rows_scored=sum(entry.rows_scored for entry in entries),
        rows_quarantined=sum(entry.rows_quarantined for entry in entries),
        rows_deleted=sum(entry.rows_deleted for entry in entries),
        seconds=time.monotonic() - start_time,
        expected_seconds=_expected_seconds(newest),
    )


def _expected_seconds(entry: LedgerEntry | None) -> float | None:
    """Return the time that a batch was estimated to take; None where nothing was measured."""
    noted = parse_json(entry.plan or "{}").get("estimate", {}) if entry is not None else {}
    seconds = noted.get("seconds")
    return None if seconds is None else round(seconds, 1)


def _check_quarantine_limit(request: ScoringRequest, result: ScoringResult) -> None:
    """Refuse more quarantined rows than the request allows.

    Also for a batch that was written before: the retry of a failed job must fail again.
    """
    limit, quarantined = request.max_quarantined_rows, result.rows_quarantined
    if limit.is_exceeded(quarantined, result.rows_read):
        raise TooManyQuarantinedRowsError(
            f"quarantined rows must be at most {limit.text}: got {quarantined} of "
            f"{result.rows_read}, now in {result.quarantine_table}, the other "
            f"{result.rows_scored} are in {result.output_table}; look at the reasons, or raise "
            "max_quarantined_rows"
        )


def _batch_id(bound: BoundRequest) -> str:
    """Return the batch id of the request, or one of everything that decides the rows."""
    return bound.request.batch_id or plan.batch_id(batch_identity(bound))


def _read_rows(bound: BoundRequest, version: int | None) -> DataFrame:
    """Return the request's rows as of a version of the input table."""
    rows = bound.request.input_table.read(bound.spark, version)
    return rows.where(bound.request.row_filter) if bound.request.row_filter else rows


def _plan(bound: BoundRequest, price_per_core_hour: float | None) -> dict[str, Any]:
    """Return the plan of a dry run: columns, versions, partitions and cost."""
    request, resolved = bound.request, bound.resolved
    bound_columns = bound.model_udf.bound_columns
    rows = _read_rows(bound, resolved.input_version)
    read_columns = {*resolved.output_columns, *bound.model_udf.column_names}
    result: dict[str, Any] = {
        "columns": {
            column.name: f"{column.column} {column.source_type} -> {column.type}"
            for column in bound_columns
        },
        "columns_to_read": f"{len(read_columns)} of {len(rows.columns)}",
        "columns_left_unread": [name for name in rows.columns if name not in read_columns],
        "output_columns": list(output_expressions(bound, 0, None)),
        "output_gains_columns": list(bound.new_columns),
        "max_quarantined_rows": request.max_quarantined_rows.text,
        "time_zone": resolved.time_zone,
    }
    row_count = None
    if request.is_stream:
        result["checkpoint_location"] = request.checkpoint
        if resolved.input.kind == "delta":
            last_version = _last_version(bound)
            result["input_versions_to_read"] = _versions_to_read(bound, last_version)
            row_count = _new_rows(bound, last_version)
    else:
        result["batch_id"] = _batch_id(bound)
        result["files_to_read"] = len(rows.inputFiles())
        # Delta's statistics have this number. A filter would cost a scan: it leaves the row count
        # an upper limit.
        row_count = request.input_table.read(bound.spark, resolved.input_version).count()
    estimate = estimate_request(bound, rows, row_count, measures=True)
    bound = replace(bound, estimate=estimate)
    partitioning = choose_partitions(bound, needed_columns(bound, rows))
    result["partitions"] = f"{partitioning.partitions or 'as Spark splits'}: {partitioning.reason}"
    return {**result, **describe_estimate(estimate, price_per_core_hour)}


def _new_rows(bound: BoundRequest, last_version: int | None) -> int:
    """Return the rows that a stream will read, from the statistics of the input and its commits."""
    table = cast(Table, bound.request.input_table)
    if last_version is None:
        return table.read(bound.spark).count()
    commits = table.history(bound.spark, None)
    return sum(c.rows for c in commits if c.version > last_version and c.operation in _ADDS_ROWS)


def _last_version(bound: BoundRequest) -> int | None:
    """Return the newest input version that a stream has scored; None before its first run."""
    if bound.request.write_mode == "follow":
        newest = next(iter(newest_first(bound)), None)
        return newest.facts.input_version_to if newest else None
    offset = last_offset(bound.spark, bound.request.checkpoint)
    return version_of_offset(offset) if offset else None


def _versions_to_read(bound: BoundRequest, last_version: int | None) -> str:
    """Return the versions of the input that a stream would read, in words."""
    if last_version is None:
        return "all"
    if last_version == bound.resolved.input_version:
        return "none"
    return f"{last_version + 1} to {bound.resolved.input_version}"


def _log_progress(step: str, done: int, total: int) -> None:
    if not total:
        log.info("%s", step)
