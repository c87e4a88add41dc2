"""Point MLflow at a tracking and a registry server, and put the old state back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@contextmanager
def mlflow_uris(tracking_uri: str | None, registry_uri: str | None) -> Iterator[None]:
    """Use these two servers inside the block; restore MLflow's state after it, error or not.

    Every MLflow from 2.19 on reads models through the global URIs, and `set_*_uri` writes
    environment variables too, so both are put back.

    Args:
        tracking_uri: For example "databricks" or "sqlite:///mlflow.db"; None leaves MLflow's own.
        registry_uri: For example "databricks-uc"; None leaves MLflow's own.
    """
    import mlflow
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    variables = {name: os.environ.get(name) for name in _VARIABLES}
    # MLflow answers with the resolved URI, never with "none was set": only its own variables
    # tell the two apart.
    old_tracking_uri = tracking._tracking_uri
    old_registry_uri = registry._registry_uri
    try:
        if tracking_uri is not None:
            mlflow.set_tracking_uri(tracking_uri)
        if registry_uri is not None:
            mlflow.set_registry_uri(registry_uri)
        yield
    finally:
        if tracking_uri is not None:
            mlflow.set_tracking_uri(old_tracking_uri)  # type: ignore[arg-type]
        if registry_uri is not None:
            mlflow.set_registry_uri(old_registry_uri)  # type: ignore[arg-type]
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
