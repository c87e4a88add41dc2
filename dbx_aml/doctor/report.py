"""The results of all checks, as a table for people and as a dictionary for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import Any

from dbx_aml._common.html import StyledCell, html_table
from dbx_aml.doctor.check_result import STATUSES, CheckResult

_HTML_STYLES = {
    "failed": "color: #d1242f; font-weight: 600",
    "warning": "color: #9a6700; font-weight: 600",
    "ok": "color: #1a7f37; font-weight: 600",
    "skipped": "color: #777",
}


class DoctorReport:
    """The results of all checks, worst first; prints as a table."""

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

    def __str__(self) -> str:
        lines = []
        for result in self.results:
            lines.append(f"{result.status:<8} {result.check}: {result.message}")
            if result.fix:
                lines.append(f"{'':<8} → {result.fix}")
        return "\n".join([*lines, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = (
            (
                StyledCell(result.status, _HTML_STYLES[result.status]),
                result.check,
                f"{result.seconds:.1f}",
                f"{result.message}\n→ {result.fix}" if result.fix else result.message,
            )
            for result in self.results
        )
        table = html_table(rows, ("status", "check", "s", "result and fix"))
        return f"{table}<p>{escape(self.summary)}</p>"
