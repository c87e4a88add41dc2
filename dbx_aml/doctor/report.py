"""The results of all checks, as a table for people and as a dictionary for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import Any

from dbx_aml.doctor.check_result import STATUSES, CheckResult, CheckStatus

_HTML_COLOURS = {"failed": "#c00", "warning": "#a60", "ok": "#080", "skipped": "#777"}


class DoctorReport:
    """The results of all checks, worst first; prints as a table.

    Args:
        results: Results in the order of the checks.
    """

    def __init__(self, results: Iterable[CheckResult]) -> None:
        self.results = sorted(results, key=lambda result: STATUSES.index(result.status))

    @property
    def failed(self) -> list[CheckResult]:
        """The results of the checks that failed."""
        return [result for result in self.results if result.status == "failed"]

    @property
    def is_ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def summary(self) -> str:
        """The number of checks by status, for example "1 failed, 2 warnings, 20 ok, 3 skipped"."""
        counts = {
            status: sum(result.status == status for result in self.results) for status in STATUSES
        }
        return ", ".join(
            f"{count} {'warnings' if status == 'warning' and count > 1 else status}"
            for status, count in counts.items()
            if count
        )

    def to_dict(self) -> dict[str, Any]:
        """Return `ok` and all `checks`, for JSON."""
        return {"ok": self.is_ok, "checks": [asdict(result) for result in self.results]}

    def rows(self) -> list[tuple[CheckStatus, str, str, str, str]]:
        """Return status, check, seconds, message and fix; one row for each reason to skip."""
        rows: list[tuple[CheckStatus, str, str, str, str]] = [
            (result.status, result.check, f"{result.seconds:.1f}", result.message, result.fix)
            for result in self.results
            if result.status != "skipped"
        ]
        skipped: dict[str, list[str]] = {}
        for result in self.results:
            if result.status == "skipped":
                skipped.setdefault(result.message, []).append(result.check)
        for reason, checks in skipped.items():
            rows.append(("skipped", ", ".join(checks), "", reason, ""))
        return rows

    def __str__(self) -> str:
        lines = []
        for status, check, _, message, fix in self.rows():
            lines.append(f"{status:<8} {check}: {message}")
            if fix:
                lines.append(f"{'':<8} → {fix}")
        return "\n".join([*lines, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='color:{_HTML_COLOURS[status]}'><b>{status}</b></td>"
            f"<td>{escape(check)}</td><td>{seconds}</td>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(message)}"
            + (f"\n<b>→ {escape(fix)}</b>" if fix else "")
            + "</td></tr>"
            for status, check, seconds, message, fix in self.rows()
        )
        head = "<tr><th>status</th><th>check</th><th>s</th><th>result and fix</th></tr>"
        return f"<table>{head}{rows}</table><p>{escape(self.summary)}</p>"
