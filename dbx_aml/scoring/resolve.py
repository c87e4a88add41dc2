"""Resolve a request: pin the model, fix the servers, the columns and the input's version."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dbx_aml._common.errors import SchemaMismatchError, ScoringError, TableNotFoundError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import plural
from dbx_aml.local.pinned_environment import PinnedEnvironment
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_files import registry_uri_of
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.challenger import check_challenger
from dbx_aml.scoring.column_binding import CHALLENGER, PREDICTION, SCORING, check_outputs
from dbx_aml.scoring.environments import requirement_differences
from dbx_aml.scoring.kafka import TEXT, KafkaTopic
from dbx_aml.scoring.own_environment import deciding_differences
from dbx_aml.scoring.pinned_model import PinnedModel, pin_model
from dbx_aml.scoring.request import ResolvedRequest, ScoringRequest
from dbx_aml.scoring.segments import pin_segment_models, read_segment_uris
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line
from dbx_aml.scoring.spark_progress import Report
from dbx_aml.scoring.table_checks import check_tables
from dbx_aml.scoring.table_identity import resolve_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)


def resolve_request(
    spark: SparkSession, request: ScoringRequest, folder: Path, report: Report
) -> ResolvedRequest:
    """Fix everything of a request that could change while the job runs.

    Raises:
        TableNotFoundError: The input table does not exist, or the user may not read it.
        ModelNotFoundError: The registry has no such model.
        SchemaMismatchError: The request names columns that the input table does not have.
        ScoringError: Another rule is broken; the message says which.
    """
    client = create_client(request.tracking_uri, request.registry_uri)
    # Delta's stream keeps its own position. The first run of "follow" reads a version.
    is_stream = request.write_mode == "incremental" and not request.dry_run
    # Spark looks up the tables while the model is downloaded.
    with ThreadPoolExecutor(1) as pool:
        model = challenger = segments = None
        if isinstance(request.input_table, KafkaTopic):
            # The messages of a topic have the columns of the model.
            report("resolving the model")
            model = _pin(request, client, folder)
            request = replace(
                request, input_table=replace(request.input_table, columns=model.inputs)
            )
        report("checking the tables")
        rows = _read_input(spark, request)
        tables = pool.submit(check_tables, spark, request, rows, with_versions=not is_stream)
        if model is None:
            report("resolving the model")
        if request.segment_models and request.segment_column:
            column = _segment_column(request, rows.columns)
            given = request.segment_models
            uris, is_template = read_segment_uris(spark, column, given, rows)
            default_uri = str(request.model_uri) if request.model_uri is not None else None
            segments = pin_segment_models(
                uris, column, default_uri, client, folder, request.environment,
                skips_missing=is_template,
            )  # fmt: skip
            model = segments.as_one_model(given if isinstance(given, str) else "segment_models")
        elif model is None:
            model = _pin(request, client, folder)
        check_outputs(model.outputs)
        if request.challenger_uri is not None:
            folder = folder.with_name("challenger")
            challenger = pin_model(request.challenger_uri, client, folder, request.environment)
            check_challenger(model, challenger)
        source, output, quarantine = tables.result()
    output_columns = _output_columns(request, rows.columns)
    pinned = [model, challenger] if challenger is not None else [model]
    if segments is not None:
        pinned = list(segments.models)
    _report_environments(request, pinned, report)
    differences = dict.fromkeys(
        text
        for each in pinned
        if each.own_environment is None
        for text in requirement_differences(each.folder)
    )
    if differences:
        log.warning("model requirements differ from this machine's: %s", "; ".join(differences))
    return ResolvedRequest(
        request=request,
        model=model,
        tracking_uri=client.tracking_uri,
        registry_uri=registry_uri_of(client),
        output_columns=output_columns,
        input=source,
        output=output,
        quarantine=quarantine,
        quarantine_name=resolve_name(spark, request.quarantine_table),
        input_version=source.version,
        time_zone=str(spark.conf.get("spark.sql.session.timeZone")),
        run=time.time_ns() // 1000,
        challenger=challenger,
        segments=segments,
    )


def _pin(request: ScoringRequest, client: MlflowClient, folder: Path) -> PinnedModel:
    return pin_model(cast(ModelUri, request.model_uri), client, folder, request.environment)


def _report_environments(
    request: ScoringRequest, models: Sequence[PinnedModel], report: Report
) -> None:
    """Say which models run in their own environment, and why if the caller did not choose it."""
    from mlflow.models import Model

    by_environment: dict[PinnedEnvironment, list[PinnedModel]] = {}
    for model in models:
        if model.own_environment is not None:
            by_environment.setdefault(model.own_environment, []).append(model)
    for environment, (model, *others) in by_environment.items():
        text = f"environment of {model.uri}"
        if others:
            text += f" and {plural(len(others), 'model')} more"
        text += f", {environment.package_count} packages"
        if request.environment == "auto":
            differences = deciding_differences(Model.load(str(model.folder)), model.folder)
            text += f": {'; '.join(differences)}"
        log.info("%s", text)
        report(f"plan: {text}")


def _read_input(spark: SparkSession, request: ScoringRequest) -> DataFrame:
    """Return the input's filtered rows; refuse what cannot be read.

    Raises:
        TableNotFoundError: The input table does not exist, or the user may not read it.
        ScoringError: The filter is no SQL predicate.
    """
    table = request.input_table
    try:
        rows = table.read(spark)
    except SPARK_ERRORS as err:
        raise TableNotFoundError(
            f"input table must exist and be readable: got {table.name!r}; {spark_error_line(err)}"
        ) from err
    try:
        filtered = rows.where(request.row_filter) if request.row_filter else rows
        filtered.schema  # noqa: B018 - Spark Connect checks the filter only now
    except SPARK_ERRORS as err:
        raise ScoringError(
            f"row_filter must be an SQL predicate on the input: got {request.row_filter!r}; "
            f"{spark_error_line(err)}"
        ) from err
    return filtered


def _segment_column(request: ScoringRequest, input_columns: Sequence[str]) -> str:
    """Return the column of the segments, which the ledger counts in the output table."""
    column = str(request.segment_column)
    if column not in (request.output_columns or input_columns):
        raise SchemaMismatchError(
            f"segment_column must be an input column, and one of output_columns: got {column!r}; "
            f"the input has {list(input_columns)}"
        )
    return column


def _output_columns(request: ScoringRequest, input_columns: Sequence[str]) -> tuple[str, ...]:
    """Return the input columns that go into the output table."""
    # The text of a message is for the quarantine.
    columns = request.output_columns or tuple(name for name in input_columns if name != TEXT)
    for argument, names in (("output_columns", columns), ("key_columns", request.key_columns)):
        unknown_names = [name for name in names if name not in input_columns]
        if unknown_names:
            raise SchemaMismatchError(
                f"{argument} must be input columns: got {unknown_names}; the input has "
                f"{list(input_columns)}"
            )
        counts = Counter(name.lower() for name in names)
        repeated_names = [name for name, count in counts.items() if count > 1]
        if repeated_names:
            raise SchemaMismatchError(
                f"{argument} must name each column once: got {repeated_names} more than once; "
                "upper and lower case are the same"
            )
    own_names = {PREDICTION, SCORING, *([CHALLENGER] if request.challenger_uri else [])}
    reserved_names = [name for name in columns if name.lower() in own_names]
    if reserved_names:
        raise SchemaMismatchError(
            f"output_columns must leave out the names of scoring's own columns: got "
            f"{reserved_names}; choose the others in output_columns, or rename it in a view"
        )
    missing_keys = [name for name in request.key_columns if name not in columns]
    if missing_keys:
        raise SchemaMismatchError(
            f"output_columns must hold the key_columns: missing {missing_keys}; add them"
        )
    return columns
