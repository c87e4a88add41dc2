"""The result of a run of monitoring."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

WindowKind = Literal["batch", "hour", "day", "week", "month"]
WINDOW_KINDS: tuple[WindowKind, ...] = ("batch", "hour", "day", "week", "month")


@dataclass(frozen=True, kw_only=True)
class ThresholdAlert:
    """A number beyond its threshold.

    Args:
        window_start: Start of the window.
        column_name: Column; ":table" for the quality of the predictions, ":quarantine" for the
            quarantined rows.
        threshold: Name of the threshold, for example "psi".
        value: Number of the window.
        limit: Threshold: the largest distance or error, the smallest score.
    """

    window_start: datetime
    column_name: str
    threshold: str
    value: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class MonitoringResult:
    """The result of a run of monitoring, and the names of its tables.

    Args:
        output_table: Table that was monitored.
        baseline: Table and version of the baseline, or its window.
        windows: Number of all windows of the table.
        windows_computed: Number of windows that were new or had changed.
        newest_window: Start of the newest window; None for a table without rows.
        rows: Rows of the newest window.
        drift: Rows of the drift table for the newest window against the baseline, the largest
            drift first.
        alerts: Numbers beyond their threshold, in the newest window and in `quality_window`.
        columns_without_baseline: Columns that the baseline does not have, or has with another type:
            they are only compared with the window before.
        profile_table: Table of the numbers of each column.
        drift_table: Table of the distances of each column.
        baseline_table: Table that keeps the baseline.
        run_id: MLflow run with the numbers as metrics; None where nothing was logged.
        quality: Quality of a window, for example {"r2_score": 0.8}; empty without labels.
        challenger_quality: The same of the challenger's predictions, in that window; empty without
            a challenger.
        quality_window: Start of that window: the newest with at least 1,000 labels, else the
            newest with labels.
        percent_quarantined: Share of the newest window's rows that were not scored.
        seconds: Time from start to end.
    """

    output_table: str
    baseline: str
    windows: int
    windows_computed: int
    newest_window: datetime | None
    rows: int
    drift: list[dict[str, Any]]
    alerts: list[ThresholdAlert]
    columns_without_baseline: list[str]
    profile_table: str
    drift_table: str
    baseline_table: str
    seconds: float
    quality: dict[str, float] = field(default_factory=dict)
    challenger_quality: dict[str, float] = field(default_factory=dict)
    quality_window: datetime | None = None
    percent_quarantined: float | None = None
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data, ready for JSON."""
        data = {**asdict(self), "seconds": round(self.seconds, 3)}
        # A time is a text in ISO 8601.
        plain: dict[str, Any] = json.loads(json.dumps(data, default=datetime.isoformat))
        return plain
