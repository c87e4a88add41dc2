"""What a cluster would lend a notebook, from this machine: Spark, an MLflow server, a link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dbx_aml.jvm import environment
from dbx_aml.local import local_artifact_uri, local_mlflow_uri, session
from dbx_aml.settings import Link

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@contextmanager
def machine() -> Iterator[SparkSession]:
    """Yield a Spark session; where nobody says a link, local MLflow stands for Databricks.

    The session ends with the block if it was started for it.
    """
    with ExitStack() as stack:
        if "DATABRICKS_RUNTIME_VERSION" not in os.environ and not Link.load().origins:
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            if not uri:
                uri = local_mlflow_uri()
                stack.enter_context(experiment("notebooks", uri))
            stack.enter_context(environment(DBX_AML_DATABRICKS_TRACKING_URI=uri))
        spark = session()
        stack.callback(spark.stop)
        yield spark


@contextmanager
def experiment(name: str, tracking_uri: str, root: Path | None = None) -> Iterator[None]:
    """Send runs to an experiment with its artifacts in the local root, made if it is not there.

    Args:
        name: For example "flights".
        tracking_uri: Of a local store.
        root: The local root of the artifacts.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name, artifact_location=local_artifact_uri(root))
    with environment(MLFLOW_EXPERIMENT_NAME=name):
        yield
