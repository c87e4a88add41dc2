"""The version of the Databricks Runtime that runs this process."""

import os

# The first is set on serverless compute, the second on a cluster.
_VARIABLES = ("DATABRICKS_ENV_VERSION", "DATABRICKS_RUNTIME_VERSION")


def is_serverless() -> bool:
    """Return whether this process runs on serverless compute."""
    return bool(os.environ.get(_VARIABLES[0]))


def running_version() -> str | None:
    """Return the version of the runtime that this process runs in, None outside of Databricks.

    Source:
        mlflow 3.15 `get_databricks_runtime_version`: on serverless compute DATABRICKS_ENV_VERSION
        has the environment's version.
    """
    environment, runtime = (os.environ.get(name) for name in _VARIABLES)
    return f"client.{environment}" if environment else runtime or None
