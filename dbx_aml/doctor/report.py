"""The results of all checks, as a table for people and as a dictionary for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import Any

from dbx_aml._common.html import StyledCell, html_table
from dbx_aml.doctor.check_result import STATUSES, CheckResult, CheckStatus

_HTML_STYLES = {
    "failed": "color: #d1242f; font-weight: 600",
    "warning": "color: #9a6700; font-weight: 600",
    "ok": "color: #1a7f37; font-weight: 600",
    "skipped": "color: #777",
}


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
        rows = (
            (
                StyledCell(status, _HTML_STYLES[status]),
                check,
                seconds,
                f"{message}\n→ {fix}" if fix else message,
            )
            for status, check, seconds, message, fix in self.rows()
        )
        table = html_table(rows, ("status", "check", "s", "result and fix"))
        return f"{table}<p>{escape(self.summary)}</p>"
