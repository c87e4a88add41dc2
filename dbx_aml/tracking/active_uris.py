"""Which two servers MLflow uses in this process, and who said so; without importing MLflow.

MLflow answers with a default as if somebody had said it, and importing it takes seconds: a command
or a notebook's first cell that only shows the two need not.
"""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

from dbx_aml._common.databricks_runtime import running_version

_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
DEFAULT = "MLflow's default"
_TRACKING = "mlflow.tracking._tracking_service.utils"
_REGISTRY = "mlflow.tracking._model_registry.utils"


class Said(NamedTuple):
    """One of MLflow's two URIs.

    Args:
        uri: For example "databricks"; in words where only MLflow, which is not imported, knows it.
        who: "dbx_aml.connect", a function of MLflow, a variable, or `DEFAULT`.
    """

    uri: str
    who: str


def without_login(text: str) -> str:
    """Return a text without the names and passwords in its URLs."""
    return _LOGIN.sub("***@", text)


def tracking_in_force() -> Said:
    """Return where MLflow tracks."""
    said = _said(_TRACKING, "_tracking_uri", "set_tracking_uri", "MLFLOW_TRACKING_URI")
    if said is not None:
        return said
    if _TRACKING in sys.modules:
        return Said(str(sys.modules[_TRACKING].get_tracking_uri()), DEFAULT)
    return Said("databricks" if running_version() else "a store in this folder", DEFAULT)


def registry_in_force() -> Said:
    """Return where MLflow registers."""
    said = _said(_REGISTRY, "_registry_uri", "set_registry_uri", "MLFLOW_REGISTRY_URI")
    if said is not None:
        return said
    if _REGISTRY in sys.modules:
        return Said(str(sys.modules[_REGISTRY].get_registry_uri()), DEFAULT)
    scheme, colon, rest = tracking_in_force().uri.partition(":")
    return Said(f"{'databricks-uc' if scheme == 'databricks' else scheme}{colon}{rest}", DEFAULT)


def _said(module: str, attribute: str, function: str, variable: str) -> Said | None:
    """Return what a URI was set to and by whom, None where nobody did."""
    own = getattr(sys.modules.get(module), attribute, None)
    if own:
        connection = getattr(sys.modules.get("dbx_aml.tracking.connect"), "_current", None)
        ours = (connection.tracking_uri, connection.registry_uri) if connection else ()
        return Said(str(own), "dbx_aml.connect" if own in ours else f"mlflow.{function}")
    named = os.environ.get(variable)
    return Said(named, variable) if named else None
