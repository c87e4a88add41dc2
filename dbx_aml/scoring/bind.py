"""Bind a resolved request to its input table: the model's columns, and the output's columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import SchemaMismatchError
from dbx_aml._common.log import get_logger
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.delta_table import column_types
from dbx_aml.scoring.model_udf import ModelUdf
from dbx_aml.scoring.output_rows import output_types
from dbx_aml.scoring.pinned_model import PinnedModel, pin_model
from dbx_aml.scoring.plan import Environment, Estimate, is_utc
from dbx_aml.scoring.request import BatchFacts, ResolvedRequest, ScoringRequest
from dbx_aml.scoring.segments import SegmentModels, pin_segment_models
from dbx_aml.scoring.spark_progress import Report

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class BoundRequest:
    """A resolved request whose model is a Spark function of the input table's columns."""

    spark: SparkSession
    resolved: ResolvedRequest
    model_udf: ModelUdf
    report: Report
    new_columns: tuple[str, ...] = ()  # an existing output table gains them
    estimate: Estimate | None = None

    @property
    def request(self) -> ScoringRequest:
        """Request as the caller made it."""
        return self.resolved.request


@dataclass(frozen=True, kw_only=True)
class PinnedUris:
    """The URIs of the models that score a batch; no alias is among them.

    Args:
        model: URI of the model; for segments the name of them all.
        challenger: URI of the challenger; None without a challenger.
        segments: URIs of the segments, see `SegmentModels.uris`; None without segments.
    """

    model: str
    challenger: str | None
    segments: Mapping[str, Any] | None

    @classmethod
    def of_request(cls, resolved: ResolvedRequest) -> PinnedUris:
        """Return the URIs of a resolved request."""
        challenger, segments = resolved.challenger, resolved.segments
        return cls(
            model=resolved.model.uri,
            challenger=challenger.uri if challenger is not None else None,
            segments=segments.uris if segments is not None else None,
        )

    @classmethod
    def of_batch(cls, facts: BatchFacts) -> PinnedUris:
        """Return the URIs of a batch."""
        return cls(
            model=facts.model_uri,
            challenger=(facts.identity.get("challenger") or {}).get("model_uri"),
            segments=facts.identity.get("segments"),
        )


def bind_request(spark: SparkSession, resolved: ResolvedRequest, report: Report) -> BoundRequest:
    """Bind the model's columns to the input table's, and check the output table's columns.

    Raises:
        SchemaMismatchError: The input table lacks a column of the model, a type does not convert,
            or the output table has a column of another type.
    """
    rows = resolved.request.input_table.read(spark)
    bound = bind_rows(spark, resolved, rows, report)
    _warn_of_time_zone(bound)
    return replace(bound, new_columns=_check_output_columns(bound, rows))


def bind_pinned_uri(
    spark: SparkSession, resolved: ResolvedRequest, uris: PinnedUris, report: Report
) -> BoundRequest:
    """Download models and bind them in the place of the resolved request's own.

    With Spark Connect, the process of a stream's callback needs its own copy of the files. And an
    earlier attempt at a batch may have used another version of the model: the same version
    finishes the batch.
    """
    client = create_client(resolved.tracking_uri, resolved.registry_uri)
    with TemporaryDirectory(prefix="dbx_aml_") as folder:
        environment = resolved.request.environment
        model, challenger, segments = pin_uris(uris, client, Path(folder), environment)
        rows = resolved.request.input_table.read(spark)
        resolved = replace(resolved, model=model, challenger=challenger, segments=segments)
        return bind_rows(spark, resolved, rows, report)


def pin_uris(
    uris: PinnedUris, client: MlflowClient, folder: Path, environment: Environment
) -> tuple[PinnedModel, PinnedModel | None, SegmentModels | None]:
    """Download the models of an earlier batch: model, challenger, models of segments."""
    if uris.segments is not None:
        segments = pin_segment_models(
            uris.segments["models"], uris.segments["column"], uris.segments["default"], client,
            folder, environment,
        )  # fmt: skip
        return segments.as_one_model(uris.model), None, segments
    model = pin_model(ModelUri.parse(uris.model), client, folder / "model", environment)
    challenger = None
    if uris.challenger is not None:
        challenger_uri = ModelUri.parse(uris.challenger)
        challenger = pin_model(challenger_uri, client, folder / "challenger", environment)
    return model, challenger, None


def bind_rows(
    spark: SparkSession, resolved: ResolvedRequest, rows: DataFrame, report: Report
) -> BoundRequest:
    """Bind the model's columns to the columns of these rows, which may be of an older version.

    Raises:
        SchemaMismatchError: The rows lack a column of the model, or a type does not convert.
    """
    types = column_types(rows)
    model_udf = ModelUdf(
        spark,
        resolved.model,
        types,
        resolved.challenger,
        resolved.segments,
        report,
    )
    _require_one_meaning(spark, model_udf.column_names, list(types))
    return BoundRequest(spark=spark, resolved=resolved, model_udf=model_udf, report=report)


def _require_one_meaning(
    spark: SparkSession, bound_names: Sequence[str], input_names: Sequence[str]
) -> None:
    """Refuse bound columns that Spark cannot tell from another column of the input table.

    Raises:
        SchemaMismatchError: Two names differ only in case, and the session ignores case.
    """
    counts = Counter(name.lower() for name in input_names)
    ambiguous_names = [name for name in bound_names if counts[name.lower()] > 1]
    if ambiguous_names and spark.conf.get("spark.sql.caseSensitive") != "true":
        raise SchemaMismatchError(
            "input columns must differ in more than upper and lower case: got "
            f"{ambiguous_names} more than once; set spark.sql.caseSensitive to 'true'"
        )


def _warn_of_time_zone(bound: BoundRequest) -> None:
    """Say what a model sees of timestamps where the session's time zone is not UTC."""
    columns = [
        column.name
        for column in bound.model_udf.all_columns
        if re.search(r"\btimestamp\b", column.source_type)
    ]
    time_zone = bound.resolved.time_zone
    if columns and not is_utc(time_zone):
        log.warning(
            "model sees timestamps as wall time in time_zone=%s, not in UTC: columns=%s; set "
            "spark.sql.session.timeZone to the zone that the model was trained with",
            time_zone,
            columns,
        )


def _check_output_columns(bound: BoundRequest, rows: DataFrame) -> tuple[str, ...]:
    """Return the columns that an existing output table gains; refuse a column of another type."""
    table = bound.request.output_table
    if bound.resolved.output is None:
        return ()
    new_types = output_types(bound, rows)
    old_types = column_types(table.read(bound.spark))
    names_by_lower_case = {name.lower(): name for name in old_types}
    differences = []
    for name, new_type in new_types.items():
        old_name = name if name in old_types else names_by_lower_case.get(name.lower(), "")
        old_type = old_types.get(old_name)
        if old_type not in (None, new_type):
            differences.append(f"{name!r} is {old_type}, not {new_type}")
    if differences:
        raise SchemaMismatchError(
            f"output table must take the scored columns: got {table.name!r}, where "
            f"{'; '.join(differences)}; write to another output_table, or choose output_columns"
        )
    new_columns = tuple(name for name in new_types if name.lower() not in names_by_lower_case)
    if new_columns:
        log.warning("output table gains columns=%s", list(new_columns))
    return new_columns
