"""Models of segments: each value of a column has its model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import (
    ArgumentError,
    ModelNotFoundError,
    ModelUriError,
    SchemaMismatchError,
    TableNotFoundError,
)
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import size_of_folder
from dbx_aml._common.text import sql_identifier
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.column_binding import check_outputs
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.pinned_model import PinnedModel, pin_model
from dbx_aml.scoring.plan import Environment
from dbx_aml.scoring.spark_errors import SPARK_ERRORS, spark_error_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from pyspark.sql import DataFrame, SparkSession

log = get_logger(__name__)

# Files of models whose models a worker keeps in memory, in each process.
CACHE_BYTES = 1 << 30
# Models that are downloaded at the same time.
_DOWNLOADS = 8
# Most segments that a template may have: each is a download.
_MOST_SEGMENTS = 10_000
_EXAMPLES = (
    'pass a JSON file such as {"north": "models:/delay_north@champion"}, a table with the columns '
    "segment and model_uri, or a URI with the column in braces"
)


@dataclass(frozen=True, kw_only=True)
class SegmentModels:
    """The pinned models of the segments.

    Args:
        column: Column of the input whose values name the segments.
        models: Models, each once.
        segments: Segment and position of its model in `models`.
        default: Position of the model for every other row; None quarantines these rows.
        size_bytes: Size of the files of all models.
    """

    column: str
    models: tuple[PinnedModel, ...]
    segments: tuple[tuple[str, int], ...]
    default: int | None
    size_bytes: int

    @property
    def fits_in_memory(self) -> bool:
        """Whether a worker keeps all models."""
        return self.size_bytes <= CACHE_BYTES

    @property
    def uris(self) -> dict[str, Any]:
        """The pinned URIs: `column`, `models` by segment, and `default`."""
        default = None if self.default is None else self.models[self.default].uri
        models = {segment: self.models[position].uri for segment, position in self.segments}
        return {"column": self.column, "models": models, "default": default}

    @property
    def content(self) -> str:
        """Digest of which model predicts which segment."""
        pairs = [f"{name}={self.models[position].content}" for name, position in self.segments]
        default = "" if self.default is None else self.models[self.default].content
        return hashlib.sha256("\n".join([*pairs, default]).encode()).hexdigest()[:16]

    def routing(self, position: int) -> dict[str, Any]:
        """Return what the guard knows of the segments.

        Args:
            position: Position of the column of segments among the guard's columns.
        """
        return {
            "position": position,
            "models": dict(self.segments),
            "default": self.default,
            "cache_bytes": CACHE_BYTES,
        }

    def as_one_model(self, uri: str) -> PinnedModel:
        """Return one model with the columns and packages of all models."""
        inputs = {column.name: column for model in self.models for column in model.inputs}
        environment = {name: text for model in self.models for name, text in model.environment}
        files = hashlib.sha256("".join(model.files for model in self.models).encode())
        return replace(
            self.models[0],
            uri=uri,
            name=None,
            version=None,
            run_id=None,
            inputs=tuple(inputs.values()),
            content=self.content,
            files=files.hexdigest()[:16],
            environment=tuple(environment.items()),
        )


def read_segment_uris(
    spark: SparkSession, column: str, source: str | Mapping[str, str], rows: DataFrame
) -> tuple[dict[str, str], bool]:
    """Return the model URI of each segment, and whether a template made them.

    Args:
        spark: Session.
        column: Column of the segments.
        source: Model URIs by segment; a JSON file of them; a table with the columns `segment` and
            `model_uri`; or a model URI with the column in braces, for the segments of the rows.
        rows: Rows of the input.

    Raises:
        ArgumentError: The URIs cannot be read, or one segment has two models.
        TableNotFoundError: The table does not exist.
    """
    if isinstance(source, Mapping):
        return _check_uris(source, "segment_models"), False
    if "{" + column + "}" in source:
        return _fill_template(column, source, rows), True
    if source.endswith(".json"):
        try:
            text = Path(source).read_text(encoding="utf-8")
            content = parse_json(text)
        except (OSError, ValueError) as err:
            raise ArgumentError(
                f"segment_models must be readable: got {source!r}; {err}; {_EXAMPLES}"
            ) from err
        if isinstance(content, Mapping):
            # Of two equal names a dictionary has the second.
            _check_once([name for name, _ in json.loads(text, object_pairs_hook=list)], source)
        return _check_uris(content, source), False
    try:
        table = Table(source).read(spark)
        # As the guard has the segments of the rows: "true", not "True".
        pairs = table.selectExpr("CAST(segment AS STRING)", "model_uri").collect()
    except SPARK_ERRORS as err:
        raise TableNotFoundError(
            "segment_models must be a table with the columns segment and model_uri: got "
            f"{source!r}; {spark_error_line(err)}; {_EXAMPLES}"
        ) from err
    _check_once([segment for segment, _ in pairs], source)
    uris = {segment: uri for segment, uri in pairs}
    return _check_uris(uris, source), False


def _check_once(segments: Sequence[str], source: str) -> None:
    count = len(set(segments))
    if count < len(segments):
        raise ArgumentError(
            f"segment_models must name each segment once: got {len(segments)} entries of {count} "
            f"segments in {source!r}"
        )


def _check_uris(content: object, source: str) -> dict[str, str]:
    if not isinstance(content, Mapping) or not content:
        raise ArgumentError(
            f"segment_models must have a model URI by segment: got {source!r}; {_EXAMPLES}"
        )
    for segment, uri in content.items():
        if not isinstance(uri, str) or not uri:
            raise ArgumentError(
                f"segment_models must have a model URI by segment: got {uri!r} for {segment!r}; "
                f"{_EXAMPLES}"
            )
        if segment is None:
            raise ArgumentError(
                f"segment_models must name each segment: got null for {uri!r}; model_uri is the "
                "model of the rows without a segment"
            )
        ModelUri.parse(uri)
    return {
        # As Spark writes it.
        str(segment).lower() if isinstance(segment, bool) else str(segment): uri
        for segment, uri in content.items()
    }


def _fill_template(column: str, template: str, rows: DataFrame) -> dict[str, str]:
    values = rows.selectExpr(f"CAST({sql_identifier(column)} AS STRING) AS segment").distinct()
    segments = [row[0] for row in values.limit(_MOST_SEGMENTS + 1).collect()]
    if len(segments) > _MOST_SEGMENTS:
        raise ArgumentError(
            f"segment_column must have at most {_MOST_SEGMENTS:,} values: got more in {column!r}; "
            "pass another column"
        )
    return {
        segment: template.replace("{" + column + "}", segment)
        for segment in sorted(s for s in segments if s is not None)
    }


def pin_segment_models(
    uris: Mapping[str, str],
    column: str,
    default_uri: str | None,
    client: MlflowClient,
    folder: Path,
    environment: Environment,
    *,
    skips_missing: bool = False,
) -> SegmentModels:
    """Resolve and download the models of the segments, each once.

    Args:
        uris: Model URI by segment.
        column: Column of the segments.
        default_uri: Model URI for every other row.
        client: Client of the servers.
        folder: Folder that the files are downloaded to.
        environment: Which environment each model runs in, see `pin_environment`.
        skips_missing: Whether a segment without a model is left out, with a warning.

    Raises:
        ModelNotFoundError: The registry has no such model, version or alias.
        SchemaMismatchError: Two models predict different types.
    """

    def pin(number: int, uri: str) -> PinnedModel | None:
        try:
            return pin_model(ModelUri.parse(uri), client, folder / str(number), environment)
        except (ModelNotFoundError, ModelUriError) as err:
            # A template makes a URI of any text of the column.
            if uri == default_uri or not skips_missing:
                raise
            log.warning("segment has no model: %s", err)
            return None

    # In one order: a table, a file and the ledger may order the same segments differently.
    uris = dict(sorted(uris.items()))
    names = list(dict.fromkeys([*uris.values(), *([default_uri] if default_uri else [])]))
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        pinned = pool.map(pin, range(len(names)), names)
        found = {uri: model for uri, model in zip(names, pinned, strict=True) if model is not None}
    models, positions = list(found.values()), {uri: i for i, uri in enumerate(found)}
    for model in models:
        check_outputs(model.outputs)
    if not models:
        raise ModelNotFoundError(
            f"segments must have models: got none for {len(uris)} values of {column!r}; {_EXAMPLES}"
        )
    first = models[0]
    for model in models[1:]:
        if [replace(o, name=None) for o in model.outputs] != [
            replace(o, name=None) for o in first.outputs
        ]:
            raise SchemaMismatchError(
                f"models of segments must predict one type: got {model.uri!r} with "
                f"{[o.type for o in model.outputs]} and {first.uri!r} with "
                f"{[o.type for o in first.outputs]}; log them with one signature"
            )
    return SegmentModels(
        column=column,
        models=tuple(models),
        segments=tuple(
            (segment, positions[uri]) for segment, uri in uris.items() if uri in positions
        ),
        default=None if default_uri is None else positions[default_uri],
        size_bytes=sum(size_of_folder(model.folder) for model in models),
    )


def count_segments(rows: DataFrame, uris: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the segments of scored rows, each with its model, the version and the rows.

    Args:
        rows: Rows of the output table, of one batch.
        uris: URIs of the batch's models, see `SegmentModels.uris`.
    """
    segment = f"CAST({sql_identifier(uris['column'])} AS STRING) AS segment"
    counted = rows.selectExpr(segment).groupBy("segment").count().collect()
    counts = []
    for name, count in sorted(counted, key=lambda row: str(row[0])):
        uri = uris["models"].get(name) or uris["default"]
        version = ModelUri.parse(uri).version if uri else None
        counts.append({"segment": name, "model_uri": uri, "model_version": version, "rows": count})
    return counts
