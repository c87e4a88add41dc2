"""Find uses of what Microsoft, Databricks and MLflow have retired, in notebooks and code.

The search reads text and runs nothing. It finds what stands in a file, and not names that a program
puts together.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.text import one_line

SUFFIXES = (".py", ".ipynb", ".yml", ".yaml", ".sh")
_MAX_TEXT = 120
_COMMENTED_LINE = re.compile(r"^[ \t]*#(?! MAGIC).*", re.MULTILINE)
# Folders of installed packages, which are not the user's code.
_SKIPPED_FOLDERS = {"__pycache__", "build", "dist", "node_modules", "site-packages"}
_NAMES_OF_SDK = (
    r"(?:_model_management|_restclient|accel|automl|contrib|core|data|datadrift|exceptions|explain"
    r"|interpret|opendatasets|pipeline|telemetry|tensorboard|train|widgets)"
)
_PACKAGES_OF_SDK = (
    r"azureml-(?:automl|core|datadrift|defaults|pipeline|sdk|train|widgets)(?:-[\w-]+)?"
)


class RetiredThing(NamedTuple):
    """Something retired, and how to recognise it.

    Args:
        name: Name, for example "adbazureml://".
        pattern: Pattern whose group 1 is the text to show.
        since: Date or release since which it is retired.
        replacement: Replacement in this package or in MLflow.
    """

    name: str
    pattern: re.Pattern[str]
    since: str
    replacement: str


# Dates: Microsoft Learn, "Azure Machine Learning SDK v1"; Databricks, "Init scripts"; MLflow's
# release notes of 2.9 and 3.0; the releases of azureml-mlflow.
RETIRED_THINGS = (
    RetiredThing(
        "Azure ML SDK v1",
        re.compile(
            rf"^[ \t]*+(?:# MAGIC[ \t]++)?((?:from[ \t]++|import[ \t]++(?:[\w. \t]++,[ \t]*+)*+)"
            rf"azureml(?:\.|[ \t]++import[ \t]++){_NAMES_OF_SDK}\b.*)"
            rf"|(?<![\w.-])({_PACKAGES_OF_SDK})(?![\w-])",
            re.MULTILINE,
        ),
        "without support since 2026-06-30",
        "MLflow after dbx_aml.connect(); dbx-aml job submit; dbx-aml endpoint deploy",
    ),
    RetiredThing(
        "adbazureml://",
        re.compile(r"(adbazureml://[^\s\"']*)"),
        "not in azureml-mlflow since 1.44",
        "dbx-aml link set --mode dual, then dbx_aml.connect()",
    ),
    RetiredThing(
        "global init scripts of DBFS",
        re.compile(r"((?:dbfs:|/dbfs)/databricks/init\b[^\s\"']*)"),
        "not run by Databricks since 2023-09-01",
        "dbx-aml cluster attach <cluster> --folder /Volumes/...",
    ),
    RetiredThing(
        "scripts on DBFS",
        re.compile(r"((?:dbfs:|/dbfs)/(?!databricks/init\b)[^\s\"']+\.sh)\b"),
        "end of life for init scripts",
        "dbx-aml cluster attach <cluster> --folder /Volumes/...",
    ),
    RetiredThing(
        "MLproject on Azure ML",
        re.compile(
            r"(backend[ \t]*=[ \t]*[\"']azureml[\"']|mlflow run\b[^\n]*(?:-b|--backend)[ =]azureml)"
        ),
        "retired in 2026-09",
        "dbx-aml job submit <script> --compute <compute>",
    ),
    RetiredThing(
        "log_model(artifact_path=)",
        re.compile(r"\blog_model\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*?\b(artifact_path[ \t]*=)"),
        "replaced in MLflow 3.0",
        "log_model(name=)",
    ),
    RetiredThing(
        "stages of models",
        re.compile(
            r"(models:/[^/\s\"']+/(?:Production|Staging|Archived|None)\b"
            r"|\btransition_model_version_stage\(|\bget_latest_versions\()",
            re.IGNORECASE,
        ),
        "deprecated in MLflow 2.9, never in Unity Catalog",
        'an alias: dbx_aml.register_model(..., alias="champion"), then models:/<name>@champion',
    ),
)


@dataclass(frozen=True, kw_only=True)
class RetiredUse:
    """A place in a file that uses something retired.

    Args:
        file: File as it was found.
        cell: Number of the cell in a Jupyter notebook, from 1; None in other files.
        line: Line of the file or of the cell, from 1.
        text: Text that was found.
        retired: Name of the retired thing, with the date.
        replacement: Replacement in this package or in MLflow.
    """

    file: Path
    cell: int | None
    line: int
    text: str
    retired: str
    replacement: str

    @property
    def location(self) -> str:
        """Return the place for people, for example "train.py:12" or "train.ipynb:cell 3:2"."""
        cell = "" if self.cell is None else f"cell {self.cell}:"
        return f"{self.file}:{cell}{self.line}"


def find_files(path: Path) -> list[Path]:
    """Return the notebooks and code below a folder, or the file itself.

    Hidden folders and folders of installed packages are left out.

    Raises:
        ArgumentError: There is no such file or folder, or nothing to read in it.
    """
    if path.is_file():
        return [path]
    files = sorted(
        Path(folder, name)
        for folder, subfolders, names in _walk(path)
        for name in names
        if name.endswith(SUFFIXES)
    )
    if not files:
        raise ArgumentError(
            f"path must have notebooks or code ({', '.join(SUFFIXES)}): got {str(path)!r}"
        )
    return files


def _walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not Path(folder, name, "pyvenv.cfg").exists()
        ]
        yield folder, subfolders, names


def find_retired(file: Path) -> list[RetiredUse]:
    """Return the uses in a file, in the order of its lines; comments are left out.

    Raises:
        ArgumentError: The file cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        raise ArgumentError(f"file must be readable: got {str(file)!r}; {one_line(err)}") from err
    cells = _code_cells(text) if file.suffix == ".ipynb" else None
    parts = [(None, text)] if cells is None else cells
    uses = [
        RetiredUse(
            file=file,
            cell=cell,
            line=code.count("\n", 0, start) + 1,
            text=one_line(found, _MAX_TEXT),
            retired=f"{thing.name}: {thing.since}",
            replacement=thing.replacement,
        )
        for cell, code in parts
        for thing in RETIRED_THINGS
        for start, found in _matches(thing, _without_comments(code))
    ]
    return sorted(uses, key=lambda use: (use.cell or 0, use.line))


def _code_cells(text: str) -> list[tuple[int | None, str]] | None:
    """Return number and code of the code cells of a Jupyter notebook; None for other text."""
    try:
        cells = json.loads(text)["cells"]
        return [
            (number, "".join(cell["source"]))
            for number, cell in enumerate(cells, 1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError):
        return None


def _without_comments(code: str) -> str:
    """Return code with blanks for its commented lines; a cell of a notebook is no comment."""
    return _COMMENTED_LINE.sub(lambda match: " " * len(match[0]), code)


def _matches(thing: RetiredThing, code: str) -> Iterator[tuple[int, str]]:
    """Yield position and text of each match."""
    for match in thing.pattern.finditer(code):
        group = match.lastindex or 0
        yield match.start(group), match[group]
