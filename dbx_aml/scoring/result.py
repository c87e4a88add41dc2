"""What a scoring job tells of its work."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ScoringResult:
    """What a job did.

    `status` is "scored", "already_scored" (the same batch a second time), "no_new_rows"
    (incremental, no new rows) or "planned" (dry run, with the plan in `plan`). `batch_id` is
    None where nothing was scored; versions are Delta's, None where a table has none.
    """

    status: str
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
    batch_id: str | None
    rows_read: int
    rows_scored: int
    rows_quarantined: int
    seconds: float
    plan: dict[str, Any] | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows read a second, start to end."""
        return self.rows_read / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, ready for JSON; the plan only for a dry run."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["rows_per_second"] = round(self.rows_per_second, 1)
        data["seconds"] = round(self.seconds, 3)
        if self.plan is None:
            del data["plan"]
        return data
