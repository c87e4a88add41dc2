"""Run a notebook for a test, and read its variables and outputs afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.environment import environment_variables
from dbx_aml._common.errors import NotebookError
from dbx_aml.local.notebook.cells import CellRun, flatten_runs
from dbx_aml.local.notebook.namespace import Namespace
from dbx_aml.local.notebook.run import run_notebook
from dbx_aml.testing.mlflow_store import EXPERIMENT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class NotebookOutcome:
    """The outcome of a notebook run.

    Args:
        value: Argument of `dbutils.notebook.exit`, with secrets redacted; None without a call.
        namespace: Variables of the notebook at its end, by name; a data frame of Spark is a frame
            of the test's session. Empty after an error.
        displayed: Values that cells have shown, each as text by MIME type, for example
            {"text/plain": "...", "text/html": "..."}.
        html: Page with all cells and their outputs.
        exit_code: 0, or 1 if a cell raised an error.
        error: Error of the failed cell, or None.
    """

    value: str | None
    namespace: Namespace
    displayed: list[dict[str, str]]
    html: str
    exit_code: int
    error: NotebookError | None


class NotebookRunner:
    """Runs notebooks of one test; at its end the frames of their namespaces are dropped.

    Args:
        folder: Folder for the pages.
        mlflow_uri: Store that stands for Databricks and for Azure ML, for tracking and registry.
    """

    def __init__(self, folder: Path, mlflow_uri: str) -> None:
        self._folder = folder
        # A project's config.json, which `connect` in a notebook reads, leads to real workspaces.
        self._variables = {
            "DBX_AML_MODE": "databricks",
            "DBX_AML_DATABRICKS_TRACKING_URI": mlflow_uri,
            "DBX_AML_AML_TRACKING_URI": mlflow_uri,
            "DBX_AML_EXPERIMENT": EXPERIMENT,
            "MLFLOW_TRACKING_URI": mlflow_uri,
            "MLFLOW_REGISTRY_URI": mlflow_uri,
        }
        self._namespaces: list[Namespace] = []

    def __enter__(self) -> NotebookRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in self._namespaces:
            namespace.close()

    def run(
        self,
        path: str | Path,
        parameters: Mapping[str, str] | None = None,
        *,
        spark: SparkSession,
        check: bool = True,
    ) -> NotebookOutcome:
        """Run a notebook in a new process, with the MLflow store of the test.

        Args:
            path: File of the notebook, for example "notebooks/report.py".
            parameters: Texts by widget name, for example {"month": "10"}.
            spark: Session whose engine the notebook shares.
            check: Whether an error of a cell raises; False for an outcome with exit code 1.

        Raises:
            ArgumentError: The file is no notebook in source format.
            NotebookError: The notebook cannot be read, or a cell has raised an error.
        """
        page = self._folder / f"{Path(path).stem}_{len(self._namespaces)}.html"
        with environment_variables(**self._variables):
            result = run_notebook(
                path, parameters, spark=spark, html=page, keep_namespace=True, check=check
            )
        self._namespaces.append(result.namespace)
        return NotebookOutcome(
            value=result.exit_value,
            namespace=result.namespace,
            displayed=_displayed(result.runs),
            html=page.read_text(encoding="utf-8"),
            exit_code=0 if result.error is None else 1,
            error=result.error,
        )


def _displayed(runs: Sequence[CellRun]) -> list[dict[str, str]]:
    return [
        output["data"]
        for run in flatten_runs(runs)
        for output in run.outputs
        if output["output_type"] in ("display_data", "execute_result")
    ]
