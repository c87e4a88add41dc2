"""What an examination found, as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from dbx_aml.doctor.check_result import FAILED, SKIPPED, STATES

_HTML_COLOURS = {"failed": "#c00", "warning": "#a60", "ok": "#080", "skipped": "#777"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one check went.

    Args:
        check: For example "token".
        state: "failed", "warning", "ok" or "skipped".
        seconds: How long it took.
        said: What was found and what it means; of a skipped one why.
        fix: What to type, to set or to ask for; "" where there is nothing to do.
    """

    check: str
    state: str
    seconds: float
    said: str
    fix: str


class Report:
    """The results of all checks, worst first; prints as lines.

    Args:
        results: In the order of the checks.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = sorted(results, key=lambda one: STATES.index(one.state))

    @property
    def failed(self) -> list[Result]:
        """What failed; nothing is an empty list."""
        return [one for one in self.results if one.state == FAILED]

    @property
    def summary(self) -> str:
        """How many of each, for example "1 failed, 2 warnings, 20 ok, 3 skipped"."""
        counts = {state: sum(one.state == state for one in self.results) for state in STATES}
        named = {
            state: "warnings" if state == "warning" and n > 1 else state
            for state, n in counts.items()
        }
        return ", ".join(f"{n} {named[state]}" for state, n in counts.items() if n)

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return {"is_good": not self.failed, "checks": [asdict(one) for one in self.results]}

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return state, check, seconds, what was said and the fix; skipped ones by their reason."""
        rows = [
            (one.state, one.check, f"{one.seconds:.1f}", one.said, one.fix)
            for one in self.results
            if one.state != SKIPPED
        ]
        skipped: dict[str, list[str]] = {}
        for one in self.results:
            if one.state == SKIPPED:
                skipped.setdefault(one.said, []).append(one.check)
        return rows + [(SKIPPED, ", ".join(names), "", why, "") for why, names in skipped.items()]

    def __str__(self) -> str:
        lines = []
        for state, check, _, said, fix in self.rows():
            lines.append(f"{state:<8} {check}: {said}")
            if fix:
                lines.append(f"{'':<8} → {fix}")
        return "\n".join([*lines, self.summary])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='color:{_HTML_COLOURS[state]}'><b>{state}</b></td>"
            f"<td>{escape(check)}</td><td>{seconds}</td>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(said)}"
            + (f"\n<b>→ {escape(fix)}</b>" if fix else "")
            + "</td></tr>"
            for state, check, seconds, said, fix in self.rows()
        )
        head = "<tr><th>result</th><th>check</th><th>s</th><th>what it means, and the fix</th></tr>"
        return f"<table>{head}{rows}</table><p>{escape(self.summary)}</p>"
