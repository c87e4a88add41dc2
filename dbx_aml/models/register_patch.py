"""A patch of `mlflow.register_model`: a source is found in either service of the link.

MLflow asks one registry and one tracking server. The patch changes only a source that these do not
have: the id of a mirrored run or model is replaced by the id of its source, and a version of the
other registry is copied.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ModelUriError
from dbx_aml.link.connected_link import connected_link
from dbx_aml.models.copy import copy_from_other_registry
from dbx_aml.models.mirrored_source import find_mirrored_source
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_uri import ModelUri

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities.model_registry import ModelVersion

_FUNCTION = "_register_model"


def patch_register_model() -> None:
    """Let `mlflow.register_model` and `registered_model_name` find a source; patch once."""
    from mlflow.tracking._model_registry import fluent

    original: Callable[..., ModelVersion] | None = getattr(fluent, _FUNCTION, None)
    if original is None or getattr(original, "is_dbx_aml_patch", False):
        return

    @wraps(original)
    def register(model_uri: str, name: str, *args: Any, **options: Any) -> ModelVersion:
        if connected_link() is None:
            return original(model_uri, name, *args, **options)
        try:
            uri = ModelUri.parse(model_uri)
        except ModelUriError:
            # A stage or "latest" is MLflow's to resolve.
            return original(model_uri, name, *args, **options)
        client = create_client()
        copied_version = copy_from_other_registry(uri, client, name, options.get("tags"))
        if copied_version is not None:
            return copied_version
        return original(str(find_mirrored_source(uri, client)), name, *args, **options)

    register.is_dbx_aml_patch = True  # type: ignore[attr-defined]
    setattr(fluent, _FUNCTION, register)
