"""Stand-in for a Databricks workspace on this machine: a Spark session and an MLflow store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml._common.environment import environment_variables
from dbx_aml.link.link import Link
from dbx_aml.local.spark import current_spark, local_artifact_uri, local_mlflow_uri

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_EXPERIMENT = "notebooks"


@contextmanager
def local_workspace() -> Iterator[SparkSession]:
    """Yield a Spark session; without any setting of a link, local MLflow stands for Databricks."""
    values = {}
    is_default = all(origin.startswith("default") for origin in Link.load().origins.values())
    if is_default and "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = local_mlflow_uri()
            create_experiment(_EXPERIMENT, uri)
            values["MLFLOW_EXPERIMENT_NAME"] = _EXPERIMENT
        # For notebooks that read the link, and for notebooks with plain MLflow only.
        values |= {"DBX_AML_DATABRICKS_TRACKING_URI": uri, "MLFLOW_TRACKING_URI": uri}
    with environment_variables(**values):
        yield current_spark()


def create_experiment(name: str, tracking_uri: str, root: str | Path | None = None) -> None:
    """Create an experiment, unless it exists, with its artifacts in the local root.

    Args:
        name: Name of the experiment, for example "flights".
        tracking_uri: URI of a local MLflow store.
        root: Local root; default as in `local_root`.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=local_artifact_uri(root))
