"""The request to score a table: as the caller made it, and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dbx_aml._common.errors import ArgumentError
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.pinned_model import PinnedModel
from dbx_aml.scoring.plan import WRITE_MODES, QuarantineLimit, WriteMode
from dbx_aml.scoring.table_identity import TableIdentity, split_name


@dataclass(frozen=True, kw_only=True)
class ScoringRequest:
    """The arguments of `score_table`, checked as far as that needs no server and no table."""

    model_uri: ModelUri
    tracking_uri: str | None = field(repr=False)  # either may hold a password
    registry_uri: str | None = field(repr=False)
    input_table: Table
    output_table: Table
    quarantine_table: Table
    row_filter: str | None
    output_columns: tuple[str, ...] | None
    key_columns: tuple[str, ...]
    write_mode: WriteMode
    replace_where: str | None
    checkpoint_location: str | None
    batch_id: str | None
    max_quarantined_rows: QuarantineLimit
    env_manager: str
    dry_run: bool

    def __post_init__(self) -> None:
        mode = self.write_mode
        if mode not in WRITE_MODES:
            raise ArgumentError(f"write_mode must be one of {', '.join(WRITE_MODES)}: got {mode!r}")
        for name in ("input_table", "output_table", "quarantine_table"):
            table = getattr(self, name)
            if not table.path:
                split_name(table.name, argument=name)
        for name, required_mode in (
            ("key_columns", "merge"),
            ("replace_where", "replace"),
            ("checkpoint_location", "incremental"),
        ):
            if getattr(self, name) and mode != required_mode:
                raise ArgumentError(
                    f"{name} must go with write_mode {required_mode!r}: got it with {mode!r}; "
                    "leave it out"
                )
        if mode == "merge" and not self.key_columns:
            raise ArgumentError(
                "write_mode 'merge' must have key_columns: got none; "
                "name the columns that identify a row"
            )
        if mode == "incremental" and self.batch_id:
            raise ArgumentError(
                f"batch_id must not go with write_mode 'incremental': got {self.batch_id!r}; "
                "the checkpoint numbers its batches"
            )
        if mode == "incremental" and not (self.checkpoint_location or self.output_table.path):
            raise ArgumentError(
                "write_mode 'incremental' into a named table must have checkpoint_location: got "
                "none; pass a folder of its own, for example /Volumes/main/ml/checkpoints/delay"
            )

    @property
    def checkpoint(self) -> str:
        """Folder of the stream's checkpoint; by default the output's path with "_checkpoint"."""
        return self.checkpoint_location or str(self.output_table.sibling("checkpoint").path)

    @property
    def is_local_environment(self) -> bool:
        """Whether the model runs with the packages of this machine."""
        return self.env_manager == "local"


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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A set of rows that is scored and written once.

    Args:
        batch_id: Name of the batch in both tables.
        app_id: Delta's `txnAppId`.
        app_version: Delta's `txnVersion`: a table accepts each pair once.
        input_version: Version of the input table that the rows are of.
    """

    batch_id: str
    app_id: str
    app_version: int
    input_version: int | None


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
