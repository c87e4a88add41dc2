"""`import dbx_aml` against a bare interpreter."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Figure, medians


def run() -> list[Figure]:
    """Measure both sides and return the figures."""

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    us, bare = medians(lambda: python("import dbx_aml"), lambda: python("pass"), rounds=15)
    met = us - bare <= 0.1
    note = f"{1000 * (us - bare):.0f} ms more"
    goal = "at most 100 ms more"
    return [Figure("import dbx_aml", us, bare, "bare interpreter", goal, met, note)]
