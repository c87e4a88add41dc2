"""Model registries: the two of a link, any other one by its URI, and the one that has a version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import (
    ArgumentError,
    DbxAmlError,
    ModelNotFoundError,
    RegistryError,
    is_not_found,
)
from dbx_aml._common.redact import redact_uri
from dbx_aml._common.text import first_line, one_line
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.credentials import get_credential
from dbx_aml.azure.workspaces import with_tracking_uri
from dbx_aml.link.connected_link import connected_link, current_link
from dbx_aml.link.link import DATABRICKS, Link
from dbx_aml.link.uris import (
    is_azureml_uri,
    is_databricks_uri,
    is_unity_catalog_uri,
    parse_azureml_uri,
)
from dbx_aml.models.mlflow_client import create_client, databricks_host
from dbx_aml.models.model_uri import ModelUri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

UNITY_CATALOG = "databricks-uc"
AML = "aml"
# Longest time for a question to a registry that the user did not name.
LOOKUP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Registry:
    """A model registry.

    Args:
        uri: MLflow registry URI, for example "databricks-uc".
        tracking_uri: MLflow tracking URI of the runs beside the registry.
    """

    uri: str
    tracking_uri: str

    @cached_property
    def client(self) -> MlflowClient:
        """Client of the registry and of its runs."""
        return create_client(self.tracking_uri, self.uri)

    @cached_property
    def identity(self) -> str:
        """Name of the registry in tags: the same on every machine, and without a login."""
        resource = parse_azureml_uri(self.uri)
        if resource is not None:
            return (
                f"azureml:/subscriptions/{resource.subscription_id}/resourceGroups/"
                f"{resource.resource_group}/{resource.kind}/{resource.name}"
            )
        if is_databricks_uri(self.uri):
            host = databricks_host(self.uri)
            address = host.partition("://")[2].rstrip("/") or host
            return f"{self.uri.partition('://')[0]}://{address}"
        return redact_uri(self.uri)

    @property
    def title(self) -> str:
        """Name of the registry for people."""
        resource = parse_azureml_uri(self.uri)
        if resource is not None:
            return f"Azure ML workspace {resource.name}"
        if is_unity_catalog_uri(self.uri):
            return "Unity Catalog in Databricks"
        if is_databricks_uri(self.uri):
            return "the workspace registry of Databricks"
        return f"MLflow server {redact_uri(self.uri)}"

    @property
    def word(self) -> str:
        """Short name in tables: a word of the link, or the URI."""
        if is_azureml_uri(self.uri):
            return AML
        return self.uri if is_databricks_uri(self.uri) else redact_uri(self.uri)

    def is_same(self, other: Registry) -> bool:
        """Tell whether two objects stand for one registry."""
        if _is_same_service(self.uri, other.uri):
            return True
        if is_databricks_uri(self.uri) != is_databricks_uri(other.uri):
            # Without the identity: Databricks may not be set up on this machine.
            return False
        return self.identity == other.identity


def linked_registries(link: Link) -> list[Registry]:
    """Return the registries of a link: first the one that registers, then the other service's."""
    databricks_word = UNITY_CATALOG if link.registry == AML else str(link.registry)
    registries = [_databricks_registry(link, databricks_word)]
    if link.aml_workspace is not None or link.aml_tracking_uri is not None:
        registries.insert(0 if link.registry == AML else 1, _aml_registry(link))
    return registries


def find_registry(name: str, link: Link) -> Registry:
    """Return the registry that a word of the link or an MLflow registry URI names.

    Args:
        name: "databricks-uc", "databricks", "aml", or a URI.
        link: Link that has the workspaces.

    Raises:
        ArgumentError: The link has no Azure ML workspace.
    """
    if name == AML:
        if link.aml_workspace is None and link.aml_tracking_uri is None:
            raise ArgumentError(
                "registry 'aml' must be an Azure ML workspace: got a link without one; "
                "set it with 'dbx-aml link set', or pass the workspace's registry URI"
            )
        return _aml_registry(link)
    if name in (UNITY_CATALOG, DATABRICKS):
        return _databricks_registry(link, name)
    if is_unity_catalog_uri(name):
        return Registry(name, name.replace(UNITY_CATALOG, DATABRICKS, 1))
    if "/" not in name:
        raise ArgumentError(
            f"registry must be 'databricks-uc', 'databricks', 'aml' or an MLflow URI: got {name!r}"
        )
    return Registry(name, name)


def get_registered_version(
    uri: ModelUri, registry: str | None, link: Link | None = None
) -> tuple[Registry, ModelVersion]:
    """Return the first registry that has a registered version, and the version.

    Args:
        uri: URI of a version or an alias.
        registry: Word of the link or MLflow registry URI; None for both registries of the link.
        link: Link that has the registries; by default the current link.

    Raises:
        ArgumentError: The URI is of another kind.
        ModelNotFoundError: No registry that answers has the version.
        RegistryError: The first registry does not answer, or refuses the caller.
    """
    check_registered(uri)
    link = link or current_link()
    registries = [find_registry(registry, link)] if registry else linked_registries(link)
    searched: list[str] = []
    unanswered = ""
    for candidate in registries:
        try:
            version = get_version(uri, candidate)
        except RegistryError as err:
            if not searched:
                raise
            # A link with Azure ML alone has no login for the other registry.
            unanswered = f" ({first_line(err)})"
            continue
        if version is not None:
            return candidate, version
        searched.append(candidate.title)
    raise ModelNotFoundError(
        f"model version must exist: got {str(uri)!r}, which is not in {' and '.join(searched)}"
        f"{unanswered}; 'dbx-aml models' lists the versions"
    )


def check_registered(uri: ModelUri) -> None:
    """Check that a URI names a version in a registry.

    Raises:
        ArgumentError: The URI is of a run, a logged model or a path.
    """
    if uri.kind not in ("version", "alias"):
        raise ArgumentError(
            f"source must be a registered version: got {str(uri)!r}; pass 'models:/<name>/3', or "
            "register the model of a run with register_model"
        )


def get_version(uri: ModelUri, registry: Registry) -> ModelVersion | None:
    """Return a registered version, or None if the registry has no such version or alias.

    Raises:
        RegistryError: The registry does not answer, or refuses the caller.
    """
    from mlflow.exceptions import MlflowException

    try:
        if uri.kind == "alias":
            return registry.client.get_model_version_by_alias(str(uri.name), str(uri.alias))
        return registry.client.get_model_version(str(uri.name), str(uri.version))
    except MlflowException as err:
        # Unity Catalog takes only names of three parts, and the workspace registry no alias.
        if is_not_found(err) or err.error_code in _NO_SUCH_NAME:
            return None
        raise RegistryError(
            f"{registry.title} must show {str(uri)!r}: got {one_line(err, 160)}; sign in there, or "
            "name the registry of the source"
        ) from err


_NO_SUCH_NAME = ("INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")


def other_registries(registry_uri: str, name: str) -> list[Registry]:
    """Return the registries of the current link that a `models:/` URI may mean as well.

    Args:
        registry_uri: Registry that does not have the model.
        name: Registered model. Unity Catalog has only names of three parts.
    """
    link = connected_link()
    if link is None:
        return []
    words = [UNITY_CATALOG if name.count(".") == 2 else DATABRICKS, AML]
    registries = []
    for word in words:
        if word == AML and link.aml_workspace is None and link.aml_tracking_uri is None:
            continue
        registry = find_registry(word, link)
        if not _is_same_service(registry.uri, registry_uri):
            registries.append(registry)
    return registries


def find_elsewhere(uri: ModelUri, registry_uri: str) -> tuple[Registry, ModelVersion] | None:
    """Return the other registry of the link that has a version, or None.

    Args:
        uri: URI of a version or an alias that the registry does not have.
        registry_uri: Registry that does not have the version.
    """
    for registry in other_registries(registry_uri, str(uri.name)):
        try:
            with time_limit(LOOKUP_TIMEOUT_S):
                version = get_version(uri, registry)
        except DbxAmlError:
            # The caller shows the answer of the first registry.
            continue
        if version is not None:
            return registry, version
    return None


def describe_model_elsewhere(name: str, version: str | None, registry_uri: str) -> str:
    """Return a sentence about a model that only the other registry has; "" if that has none.

    Args:
        name: Registered model.
        version: Its version; None for the registered model alone.
        registry_uri: Registry that does not have it.
    """
    from mlflow.exceptions import MlflowException

    for registry in other_registries(registry_uri, name):
        try:
            with time_limit(LOOKUP_TIMEOUT_S):
                if version is None:
                    registry.client.get_registered_model(name)
                else:
                    registry.client.get_model_version(name, version)
        except (MlflowException, DbxAmlError):
            # The caller shows the answer of the first registry.
            continue
        uri = f"models:/{name}/{version or '<version>'}"
        return (
            f"model must be in {Registry(registry_uri, registry_uri).title}: got "
            f"{uri if version else name!r}, which is in {registry.title}; copy it with "
            f"'dbx-aml models copy {uri}', or set MLflow's registry URI to "
            f"{redact_uri(registry.uri)!r}"
        )
    return ""


def _is_same_service(uri: str, other_uri: str) -> bool:
    resource, other_resource = parse_azureml_uri(uri), parse_azureml_uri(other_uri)
    if resource is not None and other_resource is not None:
        return resource.has_same_names(other_resource)
    return uri == other_uri


def _databricks_registry(link: Link, word: str) -> Registry:
    tracking_uri = link.databricks_tracking_uri
    scheme, separator, profile = tracking_uri.partition("://")
    # Another MLflow server that replaces Databricks has its own registry.
    uri = f"{word}{separator}{profile}" if scheme == DATABRICKS else tracking_uri
    return Registry(uri, tracking_uri)


def _aml_registry(link: Link) -> Registry:
    uri = link.aml_tracking_uri
    if uri is None and link.aml_workspace is not None:
        workspace = with_tracking_uri(AzureClient(get_credential(link)), link.aml_workspace)
        uri = workspace.tracking_uri
    return Registry(str(uri), str(uri))
