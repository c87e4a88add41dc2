"""`dbx-aml demo`: the notebooks in order on the flights of 2013: from link to monitor.

The demo writes into one folder: Delta tables, MLflow database, models, and a page of each notebook
run. It ends with an error as soon as a step does something else than its title says.
"""

from __future__ import annotations

import io
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.environment import environment_variables
from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local.demo_steps import DemoFlow, DemoStep
from dbx_aml.local.notebook.workspace_stub import create_experiment
from dbx_aml.local.samples import read_flights
from dbx_aml.local.spark import (
    SHORT_JOB_JAVA_OPTIONS,
    local_mlflow_uri,
    local_root,
    local_spark,
)
from dbx_aml.tracking.connect import connect

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from dbx_aml.local.notebook.cells import CellRun

_FOLDER_MARKER = ".made-by-dbx-aml-demo"
_EXPERIMENT = "flights"
_INDENT = "      "


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The steps of a finished demo and where it wrote.

    Args:
        steps: Steps in the order in which they ran.
        locations: Paths and URIs of the tables, MLflow and the notebooks' pages, by name.
        seconds: Wall clock of the whole demo.
    """

    steps: tuple[DemoStep, ...]
    locations: dict[str, str]
    seconds: float


def run_demo(
    root: str | Path | None = None,
    notebooks: str | Path | None = None,
) -> DemoResult:
    """Run the whole flow on this machine, print each step as it happens, and check it.

    Args:
        root: Folder to fill, for example "/tmp/demo"; default: `demo` in the local root. The
            demo deletes the files of an earlier demo and refuses a folder with any other file.
        notebooks: Folder with `02_track.py` and the other notebooks; default: `notebooks` in the
            current folder, or beside the package.

    Raises:
        DbxAmlError: The folder has other files, the flights or the notebooks are missing, or a
            step did something else than its title says.
        LocalSparkError: Spark cannot start here.
        NotebookError: A cell of a notebook raised.
    """
    start = time.monotonic()
    screen = Screen()
    notebook_folder = _find_notebooks(notebooks)
    folder = _clean_folder(Path(root or local_root() / "demo").resolve())
    uri = local_mlflow_uri(folder)
    screen.print_title(f"Flights of 2013; the demo writes into {folder}")
    with screen.spinner("reading the flights, starting Spark"):
        flights = read_flights()
        conf = {"spark.driver.extraJavaOptions": SHORT_JOB_JAVA_OPTIONS}
        spark = local_spark(folder, conf=conf)
    try:
        with screen.spinner("creating the MLflow database"):
            create_experiment(_EXPERIMENT, uri, folder)
        # This machine's MLflow store stands in for an Azure ML workspace.
        link_variables = environment_variables(
            DBX_AML_MODE="aml",
            DBX_AML_REGISTRY="aml",
            DBX_AML_AML_TRACKING_URI=uri,
            DBX_AML_EXPERIMENT=_EXPERIMENT,
        )
        flow = DemoFlow(spark, notebook_folder, folder, flights, uri, on_cell=screen.show_cell)
        with link_variables, connect(), closing(flow):
            steps = tuple(_run_steps(flow, screen))
        tables = flow.table_locations()
    finally:
        spark.stop()
    seconds = time.monotonic() - start
    mlflow = Path(sys.executable).with_name("mlflow")
    mlflow_ui = f"{mlflow} ui --backend-store-uri {shlex.quote(uri)}"
    return DemoResult(
        steps=steps,
        locations={**tables, "MLflow": uri, "MLflow UI": mlflow_ui, **flow.pages},
        seconds=seconds,
    )


def _run_steps(flow: DemoFlow, screen: Screen) -> Iterator[DemoStep]:
    for number, title in enumerate(flow.titles, start=1):
        screen.print_title(f"{number:2}/{len(flow.titles)} {title}")
        with screen.spinner(title):
            step = flow.run_step(number)
        screen.print_line(f"{step.seconds:.1f} s")
        yield step


def _find_notebooks(folder: str | Path | None) -> Path:
    beside_package = Path(__file__).parents[2] / "notebooks"
    folders = [Path("notebooks"), beside_package] if folder is None else [Path(folder)]
    for candidate in folders:
        if (candidate / "02_track.py").is_file():
            return candidate
    raise DbxAmlError(
        f"demo must find the notebooks: no 02_track.py in {[str(path) for path in folders]}; "
        "run it in a checkout of dbx-aml or name their folder"
    )


def _clean_folder(root: Path) -> Path:
    """Return an empty folder with the demo's marker; only files of an earlier demo are deleted."""
    if root.exists() and not (root / _FOLDER_MARKER).is_file() and any(root.iterdir()):
        raise DbxAmlError(
            f"demo must start in its own folder: got {str(root)!r}, which has other files; "
            "name another folder"
        )
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / _FOLDER_MARKER).touch()
    return root


class Screen:
    """Terminal output of the demo: titles, a spinner, indented lines.

    Args:
        console: Console to print to; default: the current standard output, also while a spinner
            redirects `sys.stdout`.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(file=sys.stdout, highlight=False)
        self._status: Status | None = None

    def print_title(self, text: str) -> None:
        """Print the title of a step."""
        self._console.print(f"\n{text}", style="bold", markup=False, soft_wrap=True)

    def print_line(self, line: str) -> None:
        """Print one line below a title."""
        self._console.print(f"{_INDENT}{line}", style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """Show a spinner on a terminal; lines printed in the block go below the title."""
        lines = _LineWriter(self.print_line)
        with (
            self._console.status(text) as self._status,
            redirect_stdout(lines),
            redirect_stderr(lines),
        ):
            yield

    def show_cell(self, run: CellRun) -> None:
        """Show beside the spinner which cell of a notebook runs."""
        if self._status is not None:
            cell = run.cell
            self._status.update(f"{cell.notebook.name}: cell {cell.number} of {run.cell_count}")


class _LineWriter(io.TextIOBase):
    """A stream that passes on whole lines; of a progress bar only the last state."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        self._unfinished_line = ""

    def write(self, text: str) -> int:
        *lines, self._unfinished_line = (self._unfinished_line + text).split("\n")
        for line in lines:
            self._print_line(line.rstrip("\r").rpartition("\r")[2])
        return len(text)
