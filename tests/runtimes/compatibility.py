"""Make docs/compatibility.md of the results that the tests of `make runtimes` have left.

    python -m tests.runtimes.compatibility

`results.json` keeps the results, so that a test can compare the page with them.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbx_aml.cluster.node.requirements import read_hashes
from dbx_aml.cluster.runtimes import known_runtimes
from tests.runtimes.environment import FOLDER, NAMES

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
# Steps of the program by the words of the page.
STEPS = {
    "link": "link",
    "track": "track in Databricks",
    "track in Azure ML": "track in Azure ML",
    "mirror": "mirror",
    "register": "register",
    "score": "score",
    "stream": "incremental scoring",
    "monitor": "monitor",
    "page": "page of the monitor",
}
_PACKAGES = {
    "python": "Python",
    "pyspark": "pyspark",
    "delta-spark": "delta-spark",
    "mlflow-skinny": "mlflow-skinny",
    "azureml-mlflow": "azureml-mlflow",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
}
# The tables stand between these lines; the rest of the page is written by hand.
_BEGIN = "<!-- tables from the results of 'make runtimes' -->"
_END = "<!-- end of the tables -->"


def read_results() -> dict[str, Any]:
    """Return the result of each runtime by its name."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def result_of(seen: Mapping[str, Any], date: str) -> dict[str, Any]:
    """Return what the page needs of everything that the program has seen on a node.

    Args:
        seen: Content of the program's result file.
        date: Day of the run, for example "2026-11-27".
    """
    versions = {name: version for name, version in seen["versions"].items() if name != "seconds"}
    return {"date": date, "steps": [name for name in STEPS if name in seen], "versions": versions}


def with_tables(text: str, results: Mapping[str, Any]) -> str:
    """Return the text of the page with the tables of some results."""
    before, _, rest = text.partition(f"{_BEGIN}\n")
    after = rest.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{_tables(results)}\n{_END}{after}"


def _tables(results: Mapping[str, Any]) -> str:
    lines = [
        "## What runs",
        "",
        _row("runtime", *STEPS.values(), "run on"),
        _rule(len(STEPS) + 2),
    ]
    for name, result in results.items():
        marks = ("yes" if step in result["steps"] else "no" for step in STEPS)
        lines.append(_row(known_runtimes()[name].label, *marks, result["date"]))
    for name, runtime in known_runtimes().items():
        if name not in results:
            mark = "refused" if runtime.refusal else "not run here"
            lines.append(_row(runtime.label, *[mark] * len(STEPS), "-"))
    lines += ["", "## With which versions", ""]
    lines += [
        _row("runtime", *_PACKAGES.values(), "added by the init script"),
        _rule(len(_PACKAGES) + 2),
    ]
    for name, result in results.items():
        added = [entry.name for entry in read_hashes(known_runtimes()[name].requirements)]
        versions = (result["versions"][package] for package in _PACKAGES)
        lines.append(_row(known_runtimes()[name].label, *versions, ", ".join(added)))
    own_version = next(iter(results.values()))["versions"]["dbx-aml"]
    lines += ["", f"Every row is of dbx-aml {own_version}.", "", "## What is refused", ""]
    lines += [
        f"- {runtime.label}: {runtime.refusal}."
        for name, runtime in known_runtimes().items()
        if runtime.refusal
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return "|" + "---|" * count


def main() -> None:
    """Write the results of all runtimes, and the page."""
    results = {}
    for name in NAMES:
        file = FOLDER / name / "result.json"
        if not file.exists():
            sys.exit(f"runtime {name} must have a result: got none; run 'make runtimes'")
        results[name] = json.loads(file.read_text(encoding="utf-8"))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(text, results), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
