"""`import dbx_aml` against a bare interpreter."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Figure, medians

LIMIT_S = 0.1


def run() -> list[Figure]:
    """Measure an interpreter that imports the package and a bare interpreter."""

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    import_s, bare_s = medians(lambda: python("import dbx_aml"), lambda: python("pass"), rounds=15)
    extra_s = import_s - bare_s
    note, goal = f"{1000 * extra_s:.0f} ms more", f"at most {1000 * LIMIT_S:.0f} ms more"
    is_met = extra_s <= LIMIT_S
    return [Figure("import dbx_aml", import_s, bare_s, "bare interpreter", goal, is_met, note)]
