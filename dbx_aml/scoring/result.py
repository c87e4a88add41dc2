"""The result of a scoring job."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

ScoringStatus = Literal["scored", "already_scored", "no_new_rows", "stopped", "planned"]


@dataclass(frozen=True, kw_only=True)
class ScoringResult:
    """Result of `score_table`: counts, tables, versions and the model.

    Args:
        status: "scored"; "already_scored" (this batch was in the tables); "no_new_rows"
            (a stream, and the input table has nothing new); "stopped" (a stream that was stopped
            between two batches); "planned" (dry run).
        model_uri: URI of the version that scored, for example "models:/delay/3".
        model_name: Registered model; None for a model that is not registered.
        model_version: Version of the registered model.
        model_run_id: Run that logged the model.
        input_table: Input table as it was named.
        input_version: Delta version that was read; None for an input without versions.
        output_table: Output table as it was named.
        output_version: Delta version with this batch; None where nothing was written.
        quarantine_table: Quarantine table.
        write_mode: Write mode of the request.
        batch: Number of the batch, in `_scoring.batch` and in the ledger; None where nothing was
            scored.
        batch_id: Name of the batch in the ledger; None where nothing was scored.
        rows_read: Rows of the batch; of write_mode "follow" without `rows_deleted`.
        rows_scored: Rows of the batch in the output table.
        rows_quarantined: Rows of the batch in the quarantine table.
        seconds: Time from start to end.
        rows_deleted: Rows that left both tables because the input has them no more.
        rows_removed: Rows of a batch that was scored before, which are no longer in the tables.
        removed_by: Commit that removed them from the output table, where it is known.
        plan: Plan of a dry run, else None.
        expected_seconds: Time that the newest batch was expected to take when it began; None
            where the input was too small to be measured.
    """

    status: ScoringStatus
    model_uri: str
    model_name: str | None
    model_version: str | None
    model_run_id: str | None
    input_table: str
    input_version: int | None
    output_table: str
    output_version: int | None
    quarantine_table: str
    write_mode: str
    batch: int | None
    batch_id: str | None
    rows_read: int
    rows_scored: int
    rows_quarantined: int
    seconds: float
    rows_deleted: int = 0
    rows_removed: int = 0
    removed_by: str | None = None
    plan: dict[str, Any] | None = None
    expected_seconds: float | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows read a second, from start to end."""
        return self.rows_read / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, ready for JSON; the plan only for a dry run."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["rows_per_second"] = round(self.rows_per_second, 1)
        data["seconds"] = round(self.seconds, 3)
        if self.plan is None:
            del data["plan"]
        return data
