"""The request to score a table: as the caller made it, and resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dbx_aml._common.databricks_runtime import is_serverless
from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.json_content import parse_json
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.kafka import KafkaTopic
from dbx_aml.scoring.pinned_model import PinnedModel
from dbx_aml.scoring.plan import (
    ENVIRONMENTS,
    SOURCES,
    WRITE_MODES,
    Environment,
    QuarantineLimit,
    Trigger,
    WriteMode,
)
from dbx_aml.scoring.segments import SegmentModels
from dbx_aml.scoring.table_identity import TableIdentity, split_name

# Write modes that read the input as a stream.
STREAM_MODES = ("incremental", "follow")


@dataclass(frozen=True, kw_only=True)
class ScoringRequest:
    """The arguments of `score_table`, checked as far as that needs no server and no table."""

    model_uri: ModelUri | None
    tracking_uri: str | None = field(repr=False)  # either may hold a password
    registry_uri: str | None = field(repr=False)
    input_table: Table | KafkaTopic
    output_table: Table
    quarantine_table: Table
    row_filter: str | None
    output_columns: tuple[str, ...] | None
    key_columns: tuple[str, ...]
    write_mode: WriteMode
    replace_where: str | None
    checkpoint_location: str | None
    batch_id: str | None
    trigger: Trigger
    max_quarantined_rows: QuarantineLimit
    environment: Environment
    rescore: bool
    dry_run: bool
    challenger_uri: ModelUri | None = None
    segment_column: str | None = None
    segment_models: str | Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        mode = self.write_mode
        if mode not in WRITE_MODES:
            raise ArgumentError(f"write_mode must be one of {', '.join(WRITE_MODES)}: got {mode!r}")
        for name in ("input_table", "output_table", "quarantine_table"):
            table = getattr(self, name)
            if isinstance(table, Table) and not table.path:
                split_name(table.name, argument=name)
        for name, modes in (
            ("key_columns", ("merge", "follow")),
            ("replace_where", ("replace",)),
            ("checkpoint_location", STREAM_MODES),
        ):
            if getattr(self, name) and mode not in modes:
                raise ArgumentError(
                    f"{name} must go with write_mode {' or '.join(map(repr, modes))}: got it with "
                    f"{mode!r}; leave it out"
                )
        if self.environment not in ENVIRONMENTS:
            raise ArgumentError(
                f"environment must be one of {', '.join(ENVIRONMENTS)}: got {self.environment!r}"
            )
        if bool(self.segment_column) != bool(self.segment_models):
            raise ArgumentError(
                "segment_column must go with segment_models: got "
                f"{self.segment_column!r} and {self.segment_models!r}; pass both or neither"
            )
        if self.segment_models and self.challenger_uri:
            raise ArgumentError(
                f"segment_models must go without challenger_uri: got {str(self.challenger_uri)!r}; "
                "leave it out"
            )
        if self.model_uri is None and not self.segment_models:
            raise ArgumentError(
                "model_uri must be given: got none; pass for example 'models:/delay@champion'"
            )
        if mode in ("merge", "follow") and not self.key_columns:
            raise ArgumentError(
                f"write_mode {mode!r} must have key_columns: got none; "
                "name the columns that identify a row"
            )
        if isinstance(self.input_table, KafkaTopic) and self.segment_models:
            raise ArgumentError(
                "segment_models must go with source 'table': got 'kafka' with topic "
                f"{self.input_table.topic!r}; pass one model_uri"
            )
        if isinstance(self.input_table, KafkaTopic) and mode != "incremental":
            raise ArgumentError(
                f"write_mode must be 'incremental' for source 'kafka': got {mode!r}; "
                "the checkpoint knows which messages are scored"
            )
        if self.trigger.is_endless:
            self._check_interval()
        if self.is_stream and self.batch_id:
            raise ArgumentError(
                f"batch_id must not go with write_mode {mode!r}: got {self.batch_id!r}; "
                "the checkpoint numbers its batches"
            )
        if self.is_stream and not (self.checkpoint_location or self.output_table.path):
            raise ArgumentError(
                f"write_mode {mode!r} into a named table must have checkpoint_location: got "
                "none; pass a folder of its own, for example /Volumes/main/ml/checkpoints/delay"
            )

    def _check_interval(self) -> None:
        given = f"an interval of {self.trigger.interval_s} s"
        if not self.is_stream:
            raise ArgumentError(
                f"trigger must be 'available-now' for write_mode {self.write_mode!r}: got {given}; "
                "leave it out, or use write_mode 'incremental' or 'follow'"
            )
        if is_serverless():
            raise ArgumentError(
                f"trigger must be 'available-now' on serverless compute: got {given}; start "
                "available-now runs again and again, as the job score_stream of the bundle does"
            )

    @property
    def is_stream(self) -> bool:
        """Whether a checkpoint knows which rows or changes of the input are scored."""
        return self.write_mode in STREAM_MODES

    @property
    def checkpoint(self) -> str:
        """Folder of the stream's checkpoint; by default the output's path with "_checkpoint"."""
        return self.checkpoint_location or str(self.output_table.sibling("checkpoint").path)


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request whose model, servers and columns no longer change.

    It is plain data: with Spark Connect, a stream calls back in a process beside the server, and
    this travels there.

    Args:
        request: Request that was resolved.
        model: Pinned model; its folder is of use on this machine only.
        tracking_uri: MLflow tracking URI.
        registry_uri: MLflow registry URI.
        output_columns: Input columns that go into the output table.
        input: Input table; its versions are None for a stream, a view or a file.
        output: Output table; None if it does not exist yet.
        quarantine: Quarantine table; None if it does not exist yet.
        quarantine_name: Name of the quarantine table with catalog and schema.
        input_version: Version of the input table that is read: the newest one, with the rows of
            `input.data_version`. None for a stream, a view or a file.
        time_zone: Time zone of the session.
        run: Number of this call of `score_table`: microseconds since 1970 at its start.
        challenger: Pinned challenger; None without a challenger.
        segments: Pinned models of the segments; `model` is then all of them together.
    """

    request: ScoringRequest
    model: PinnedModel
    tracking_uri: str = field(repr=False)
    registry_uri: str = field(repr=False)
    output_columns: tuple[str, ...]
    input: TableIdentity
    output: TableIdentity | None
    quarantine: TableIdentity | None
    quarantine_name: str
    input_version: int | None
    time_zone: str
    run: int
    challenger: PinnedModel | None = None
    segments: SegmentModels | None = None


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """A batch: what decides its rows, and how they were scored.

    It travels in the commits of the tables, and in the ledger.

    Args:
        batch: Number of the batch: microseconds since 1970 at its start. `_scoring.batch`.
        batch_id: Name of the batch.
        identity: Everything that decides the batch's rows and its target.
        job: Digest of the facts that each run of the job shares.
        run: Number of the call of `score_table`; a call with a checkpoint may write several
            batches.
        model_uri: URI of the pinned model.
        model_name: Registered model; None for a model that is not registered.
        model_version: Version of the registered model.
        model_run_id: Run that logged the model.
        registry_uri: MLflow registry URI, without secrets.
        input_table: Input table by its full name.
        input_id: Id of the input table; None for an input without versions.
        input_version_from: First version of the input table with rows of the batch.
        input_version_to: Version of the input table that the rows are of.
        row_filter: SQL predicate of the request.
        write_mode: Write mode of the request.
        quarantine_table: Quarantine table as it was named.
        compute: Cluster or machine.
    """

    batch: int
    batch_id: str
    identity: Mapping[str, Any] = field(hash=False)
    job: str
    run: int
    model_uri: str
    model_name: str | None
    model_version: str | None
    model_run_id: str | None
    registry_uri: str | None
    input_table: str
    input_id: str | None
    input_version_from: int | None
    input_version_to: int | None
    row_filter: str | None
    write_mode: str
    quarantine_table: str
    compute: str | None

    @property
    def previous_batch(self) -> int | None:
        """Batch whose tables the changes of this batch apply to; None for a batch of rows.

        Only write_mode "follow" has batches of changes.
        """
        return self.identity.get("previous_batch")

    @property
    def write_action(self) -> Literal["append", "merge", "replace"]:
        """How the scored rows go into the output table."""
        if self.write_mode == "follow":
            return "replace" if self.previous_batch is None else "merge"
        actions: dict[str, Literal["merge", "replace"]] = {"merge": "merge", "replace": "replace"}
        return actions.get(self.write_mode, "append")

    @property
    def identity_text(self) -> str:
        """The identity as JSON."""
        return json.dumps(self.identity, sort_keys=True, ensure_ascii=False)

    def to_metadata(self) -> dict[str, Any]:
        """Return the facts as plain data, for a commit."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> BatchFacts:
        """Return the facts from a commit, or from a row of the ledger."""
        values: dict[str, Any] = {field.name: metadata.get(field.name) for field in fields(cls)}
        if isinstance(values["identity"], str):
            values["identity"] = parse_json(values["identity"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """A transaction that a Delta table accepts once.

    Args:
        app_id: Delta's `txnAppId`.
        app_version: Delta's `txnVersion`.
    """

    app_id: str
    app_version: int


def parse_input(
    source: str, input_table: str, topic: str, bootstrap_servers: str, connection_secret: str
) -> Table | KafkaTopic:
    """Return the input that these arguments of `score_table` name.

    Raises:
        ArgumentError: An argument of the source is missing, or one of the other source is given.
        LinkError: The secret is no reference.
    """
    if source not in SOURCES:
        raise ArgumentError(f"source must be one of {', '.join(SOURCES)}: got {source!r}")
    for_topic = {"topic": topic, "bootstrap_servers": bootstrap_servers}
    others = {**for_topic, "connection_secret": connection_secret}
    if source == "kafka":
        others = {"input_table": input_table}
    for name, value in others.items():
        if value:
            # The value may be the secret itself.
            given = "one" if name == "connection_secret" else repr(value)
            raise ArgumentError(f"{name} must not go with source {source!r}: got {given}")
    if source == "table":
        return Table(require_value("input_table", input_table))
    for name, value in for_topic.items():
        require_value(name, value)
    secret = SecretRef.parse(connection_secret) if connection_secret else None
    return KafkaTopic(topic=topic, bootstrap_servers=bootstrap_servers, connection_secret=secret)


def require_value(name: str, value: str) -> str:
    """Return the value of an argument that has no default.

    Raises:
        ArgumentError: The value is empty.
    """
    if not value:
        raise ArgumentError(f"{name} must be given: got {value!r}")
    return value


def split_names(names: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Return column names from a list, or from one text with commas; None for no name."""
    if not names:
        return None
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    return tuple(name for name in names if name) or None
