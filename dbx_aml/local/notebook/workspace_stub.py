"""What a cluster would lend a notebook, from this machine: Spark, an MLflow server, a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml.link.link import Link
from dbx_aml.local.java import environment_variables
from dbx_aml.local.spark import current_spark, local_artifact_uri, local_mlflow_uri

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_EXPERIMENT = "notebooks"


@contextmanager
def local_workspace() -> Iterator[SparkSession]:
    """Yield a Spark session; where nobody says a link, local MLflow stands for Databricks."""
    values = {}
    is_default = all(who.startswith("default") for who in Link.load().origins.values())
    if is_default and "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = local_mlflow_uri()
            make_experiment(_EXPERIMENT, uri)
            values["MLFLOW_EXPERIMENT_NAME"] = _EXPERIMENT
        # For notebooks that read the link, and for those with plain MLflow only.
        values |= {"DBX_AML_DATABRICKS_TRACKING_URI": uri, "MLFLOW_TRACKING_URI": uri}
    with environment_variables(**values):
        yield current_spark()


def make_experiment(name: str, tracking_uri: str, root: str | Path | None = None) -> None:
    """Make an experiment that keeps its artifacts in the local root, if it is not there.

    Args:
        name: For example "flights".
        tracking_uri: Of a local store.
        root: The local root.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=local_artifact_uri(root))
