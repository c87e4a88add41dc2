"""MLflow's two URIs in this process, each with its origin; without importing MLflow.

MLflow returns its default as if a user had set it, and importing it takes seconds. A command or a
notebook's first cell that only shows the URIs does not need the import.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from dbx_aml._common.databricks_runtime import running_version

MLFLOW_DEFAULT = "MLflow's default"
_TRACKING_MODULE = "mlflow.tracking._tracking_service.utils"
_REGISTRY_MODULE = "mlflow.tracking._model_registry.utils"


class UriWithOrigin(NamedTuple):
    """One of MLflow's two URIs.

    Args:
        uri: MLflow URI, for example "databricks"; a description of MLflow's default if MLflow is
            not imported.
        origin: "dbx_aml.connect", a function of MLflow, a variable, or `MLFLOW_DEFAULT`.
    """

    uri: str
    origin: str


def active_tracking_uri() -> UriWithOrigin:
    """Return the URI of the server that MLflow tracks to."""
    explicit = _explicit_uri(
        _TRACKING_MODULE, "_tracking_uri", "set_tracking_uri", "MLFLOW_TRACKING_URI"
    )
    if explicit is not None:
        return explicit
    if _TRACKING_MODULE in sys.modules:
        uri = str(sys.modules[_TRACKING_MODULE].get_tracking_uri())
        return UriWithOrigin(uri, MLFLOW_DEFAULT)
    uri = "databricks" if running_version() else "a store in this folder"
    return UriWithOrigin(uri, MLFLOW_DEFAULT)


def active_registry_uri() -> UriWithOrigin:
    """Return the URI of the server that MLflow registers models in."""
    explicit = _explicit_uri(
        _REGISTRY_MODULE, "_registry_uri", "set_registry_uri", "MLFLOW_REGISTRY_URI"
    )
    if explicit is not None:
        return explicit
    if _REGISTRY_MODULE in sys.modules:
        uri = str(sys.modules[_REGISTRY_MODULE].get_registry_uri())
        return UriWithOrigin(uri, MLFLOW_DEFAULT)
    scheme, separator, rest = active_tracking_uri().uri.partition(":")
    registry_scheme = "databricks-uc" if scheme == "databricks" else scheme
    return UriWithOrigin(f"{registry_scheme}{separator}{rest}", MLFLOW_DEFAULT)


def _explicit_uri(
    module: str, attribute: str, function: str, variable: str
) -> UriWithOrigin | None:
    """Return a URI that code or a variable has set, None if none was set."""
    uri = getattr(sys.modules.get(module), attribute, None)
    if uri:
        connect_module = sys.modules.get("dbx_aml.tracking.connect")
        connection = connect_module.current_connection() if connect_module else None
        connected = (connection.tracking_uri, connection.registry_uri) if connection else ()
        origin = "dbx_aml.connect" if uri in connected else f"mlflow.{function}"
        return UriWithOrigin(str(uri), origin)
    value = os.environ.get(variable)
    return UriWithOrigin(value, variable) if value else None
