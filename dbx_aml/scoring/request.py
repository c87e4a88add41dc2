"""The arguments of a job, checked as far as that needs no server and no table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbx_aml._common.errors import ArgumentError
from dbx_aml.scoring import plan
from dbx_aml.scoring.delta_table import Table


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What `score_table` was given; see there."""

    input_table: Table
    output_table: Table
    quarantine_table: Table | None
    row_filter: str | None
    output_columns: tuple[str, ...] | None
    key_columns: tuple[str, ...]
    write_mode: str
    replace_where: str | None
    checkpoint_location: str | None
    batch_id: str | None
    max_quarantined_rows: plan.Tolerance
    env_manager: str

    def __post_init__(self) -> None:
        mode = self.write_mode
        if mode not in plan.WRITE_MODES:
            raise ArgumentError(
                f"write_mode must be one of {', '.join(plan.WRITE_MODES)}: got {mode!r}"
            )
        if self.input_table == self.output_table:
            raise ArgumentError(
                f"output_table must not be the input table: got {self.output_table.name!r} twice"
            )
        for name, wanted in (
            ("key_columns", "merge"),
            ("replace_where", "replace"),
            ("checkpoint_location", "incremental"),
        ):
            value = getattr(self, name)
            if value and mode != wanted:
                raise ArgumentError(
                    f"{name} must go with write_mode {wanted!r}: got it with {mode!r}; leave it out"
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
    def quarantine(self) -> Table:
        """The quarantine table, given or beside the output."""
        return self.quarantine_table or self.output_table.beside("quarantine")

    @property
    def checkpoint(self) -> str:
        """The checkpoint's folder, given or beside the output's path."""
        beside = self.output_table.beside("checkpoint").path
        return self.checkpoint_location or str(beside)


def need(name: str, value: str) -> str:
    """Return the value of an argument that has no default.

    Raises:
        ArgumentError: It is empty.
    """
    if not value:
        raise ArgumentError(f"{name} must be given: got {value!r}")
    return value


def names(value: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Return column names from a list, or from one text with commas; None for nothing."""
    if not value:
        return None
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    return tuple(name for name in value if name) or None
