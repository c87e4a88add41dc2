"""Names of registered models: what each registry accepts, and the name of a copy elsewhere."""

from __future__ import annotations

import hashlib
import re

from dbx_aml._common.errors import ArgumentError
from dbx_aml.link.uris import is_azureml_uri, is_databricks_uri, is_unity_catalog_uri

_AML_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_UNITY_CATALOG_PART = r"[^./\s\x00-\x1f\x7f]{1,255}"
_UNITY_CATALOG_NAME = re.compile(rf"{_UNITY_CATALOG_PART}(?:\.{_UNITY_CATALOG_PART}){{2}}")
_WORKSPACE_NAME = re.compile(r"[^./:\x00-\x1f\x7f]{1,256}")
_MLFLOW_NAME = re.compile(r"[^/:\x00-\x1f\x7f]{1,256}")
# A name of three parts without "-", so that "-" can stand for each ".".
_PLAIN_PARTS = re.compile(r"[A-Za-z0-9]\w*(?:\.\w+){2}", re.ASCII)
_HASH_LENGTH = 8


def check_model_name(name: str, registry_uri: str) -> str:
    """Return a name that the registry accepts for a registered model.

    Args:
        name: Name, for example "delay".
        registry_uri: MLflow registry URI.

    Raises:
        ArgumentError: The registry refuses such a name.

    Source:
        Azure ML's REST API, pattern of the name of a model container; Databricks, "Names" in the
        reference of SQL.
    """
    if is_unity_catalog_uri(registry_uri):
        pattern, rule = _UNITY_CATALOG_NAME, "have three parts, for example 'main.ml.delay'"
    elif is_databricks_uri(registry_uri):
        pattern, rule = _WORKSPACE_NAME, "have no '.', '/' or ':', for example 'delay'"
    elif is_azureml_uri(registry_uri):
        pattern, rule = (
            _AML_NAME,
            "have 1 to 255 letters, digits, '-' or '_' and begin with a letter or digit, "
            "for example 'main-ml-delay'",
        )
    else:
        pattern, rule = _MLFLOW_NAME, "have no '/' or ':', for example 'delay'"
    if pattern.fullmatch(name) and name.strip() == name:
        return name
    raise ArgumentError(
        f"name of a registered model in {_service(registry_uri)} must {rule}: got {name!r}; "
        "pass another name as destination"
    )


def map_model_name(name: str, registry_uri: str) -> str:
    """Return the name in another registry of a copied model.

    "main.ml.delay" becomes "main-ml-delay" where no dots are allowed. If two names could become
    one, a short hash of the whole name ends the new name. A name that the registry accepts stays.

    Args:
        name: Name in the source registry.
        registry_uri: MLflow registry URI of the destination.

    Raises:
        ArgumentError: The destination is Unity Catalog, and the name has no catalog and schema.
    """
    try:
        return check_model_name(name, registry_uri)
    except ArgumentError:
        if is_unity_catalog_uri(registry_uri):
            raise
    if _PLAIN_PARTS.fullmatch(name):
        mapped = name.replace(".", "-")
    else:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
        start = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:200]
        mapped = f"{start}-{digest}" if start else f"model-{digest}"
    return check_model_name(mapped, registry_uri)


def _service(registry_uri: str) -> str:
    if is_unity_catalog_uri(registry_uri):
        return "Unity Catalog"
    if is_databricks_uri(registry_uri):
        return "Databricks"
    return "Azure ML" if is_azureml_uri(registry_uri) else "MLflow"
