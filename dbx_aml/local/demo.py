"""The notebooks in their order, on real flights: link, train, register, score, night after night.

Everything that the demo makes is below one folder: the Delta tables, the MLflow database, the
models, a page of each notebook that ran. What it shows is checked as it goes: a step that does
something else than its title says ends the demo.

    flights   the input
    story     the steps and their checks
    show      what a person sees
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local.demo_flights import read_flights
from dbx_aml.local.demo_screen import Screen
from dbx_aml.local.demo_steps import DemoStep, Story
from dbx_aml.local.java import environment_variables
from dbx_aml.local.notebook.workspace_stub import make_experiment
from dbx_aml.local.spark import local_mlflow_uri, local_root, local_spark
from dbx_aml.tracking.connect import mlflow_uris

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DemoResult", "DemoStep", "read_flights", "run_demo"]

_MARKER = ".made-by-dbx-aml-demo"
_EXPERIMENT = "flights"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo did and where it left it.

    Args:
        root: The folder with everything it made.
        tracking_uri: The MLflow database with its runs and model versions.
        steps: In their order.
        seconds: Wall clock of the whole.
    """

    root: Path
    tracking_uri: str
    steps: tuple[DemoStep, ...]
    seconds: float


def run_demo(
    root: str | Path | None = None,
    notebooks: str | Path | None = None,
    *,
    console: Console | None = None,
) -> DemoResult:
    """Run the whole flow on this machine, print each step as it happens, and check it.

    Args:
        root: The folder to fill, for example "/tmp/demo"; by default `demo` in the local root.
            What an earlier demo left there is deleted first; a folder with anything else in it
            is refused.
        notebooks: The folder with `02_track.py` and its kind; by default `notebooks` in the
            current folder, or beside the package.
        console: Where to print; by default standard output.

    Raises:
        DbxAmlError: The folder is not the demo's, the flights or the notebooks are not there,
            or a step did something else than its title says.
        LocalSparkError: Spark cannot start here.
        NotebookError: A cell of a notebook raised.
    """
    start = time.monotonic()
    screen = Screen(console)
    notebook_folder = _find_notebooks(notebooks)
    folder = _clean_folder(Path(root or local_root() / "demo").resolve())
    uri = local_mlflow_uri(folder)
    screen.title(f"Flights of 2013: all that this demo makes is below {folder}")
    with screen.working("reading the flights, starting Spark"):
        flights = read_flights()
        # The steps are short: without its second compiler Java needs half the time for them.
        spark = local_spark(
            folder, conf={"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1"}
        )
    try:
        story = Story(screen, spark, notebook_folder, folder, flights, uri)
        with screen.working("making the MLflow database"):
            make_experiment(_EXPERIMENT, uri, folder)
        # This machine's MLflow store stands in for an Azure ML workspace.
        link = environment_variables(
            DBX_AML_MODE="aml",
            DBX_AML_REGISTRY="aml",
            DBX_AML_AML_TRACKING_URI=uri,
            DBX_AML_EXPERIMENT=_EXPERIMENT,
        )
        with mlflow_uris(uri, uri), link:
            steps = story.tell()
        tables = story.tables()
    finally:
        spark.stop()
    seconds = time.monotonic() - start
    mlflow = Path(sys.executable).with_name("mlflow")
    pages = f"{mlflow} ui --backend-store-uri {shlex.quote(uri)}"
    screen.summary(steps, {**tables, "MLflow": uri, "its pages": pages, **story.pages})
    screen.title(f"Every step did what its title says, in {seconds:.0f} s.")
    return DemoResult(root=folder, tracking_uri=uri, steps=steps, seconds=seconds)


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
    """Delete what an earlier demo left, nothing else; return the empty folder, marked."""
    if root.exists() and not (root / _MARKER).is_file() and any(root.iterdir()):
        raise DbxAmlError(
            f"demo must start in its own folder: got {str(root)!r}, which has other files; "
            "name another folder"
        )
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / _MARKER).touch()
    return root
