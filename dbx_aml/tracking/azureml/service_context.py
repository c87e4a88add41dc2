"""Workspace and credential of a store: the service context of azureml-mlflow.

azureml-mlflow builds its own context from a chain of credentials that ends with an interactive
login and has no time limit. The credential of this package never opens a login. Each context is
registered where azureml-mlflow looks first, so that all of that package uses it.
"""

import os
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any

from azureml.mlflow._common._cloud.cloud import _get_cloud_or_default
from azureml.mlflow._internal.service_context_loader import (
    _AzureMLServiceContextLoader,
)
from azureml.mlflow._internal.utils import RegistryServiceContext, ServiceContext
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml._common.errors import UntrustedHostError
from dbx_aml._common.redact import redact
from dbx_aml.azure.credentials import get_credential
from dbx_aml.link.clouds import check_data_plane_host, cloud_and_region
from dbx_aml.link.connected_link import connected_link, link_of_workspace
from dbx_aml.link.link import Link
from dbx_aml.link.uris import AzuremlUri, parse_azureml_uri
from dbx_aml.tracking.azureml.job_token import (
    accepts_job_token,
    find_job_token,
    has_job_token,
)
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors

_lock = Lock()


def service_context_of(uri: str, *known_uris: str | None) -> Any:
    """Return the service context of a workspace or a registry; the same object each time.

    A URI of a run, a model or a message may have any host. If the connected link or a known URI
    names the same workspace, its host is called.

    Args:
        uri: Tracking, registry or artifact URI.
        known_uris: Tracking and registry URIs that the caller's code has set.

    Raises:
        MlflowException: The URI names no workspace and no registry, its host is not Azure ML's, or
            a known URI has another host for the workspace. No token was requested.
    """
    resource = parse_azureml_uri(uri)
    if resource is None:
        raise MlflowException(
            "Azure ML URI must name subscription, resource group and workspace: "
            f"got {redact(uri)!r}; copy the tracking URI from the workspace's page",
            INVALID_PARAMETER_VALUE,
        )
    link = connected_link()
    workspace = link.aml_workspace if link is not None else None
    link_uri = workspace.known_tracking_uri if workspace is not None else None
    host = _trusted_host(resource, link_uri, *known_uris)
    # One context for all the paths of a workspace.
    resource = replace(resource, host=host, api="", path="")
    with _lock:
        return _registered_context(resource) or _create_context(resource)


def _trusted_host(resource: AzuremlUri, *known_uris: str | None) -> str:
    """Return the host to call for a workspace or a registry, once it may get a token."""
    with mlflow_errors(
        f"artifacts of run {resource.run_artifact[1]}: " if resource.run_artifact else ""
    ):
        host = check_data_plane_host(resource.host)
        for known in map(parse_azureml_uri, known_uris):
            if known is None or not resource.has_same_names(known):
                continue
            if resource.names_same_resource(known):
                return check_data_plane_host(known.host)
            raise UntrustedHostError(
                f"host must be that of {resource.name!r}, {known.host!r}: got {host!r}; "
                "report it to the owner of the workspace"
            )
    return host


@lru_cache(maxsize=64)
def _create_context(resource: AzuremlUri) -> Any:
    arguments: dict[str, Any] = {
        "subscription_id": resource.subscription_id,
        "resource_group_name": resource.resource_group,
        "host_url": f"https://{resource.host}",
        "cloud": _cloud_of_host(resource.host),
    }
    if resource.kind == "registries":
        return RegistryServiceContext(
            registry_name=resource.name, auth=LinkCredential(), **arguments
        )
    uris = _context_uris(resource)
    auth = LinkCredential(uris[0])
    context = ServiceContext(workspace_name=resource.name, auth=auth, **arguments)
    for uri in uris:
        _AzureMLServiceContextLoader.add_service_context(uri, context)
    return context


def workspace_uri_of(context: Any) -> str:
    """Return the tracking URI of the workspace or the registry of a service context."""
    host = context.host_url.partition("://")[2]
    return f"azureml://{host}/mlflow/v2.0{context._get_scope()}"


def shared_registry_context(host: str, name: str) -> Any:
    """Return the service context of a registry of which only the name is known.

    Raises:
        MlflowException: The host is not Azure ML's.
    """
    with mlflow_errors():
        host = check_data_plane_host(host)
    return RegistryServiceContext(
        subscription_id=None,
        resource_group_name=None,
        registry_name=name,
        auth=LinkCredential(),
        host_url=None,
        cloud=_cloud_of_host(host),
    )


def _registered_context(resource: AzuremlUri) -> Any:
    """Return the context that another library, for example the SDK, has registered; else None."""
    for uri in _context_uris(resource):
        if _AzureMLServiceContextLoader.has_service_context(uri):
            return _AzureMLServiceContextLoader.get_service_context(uri)
    return None


def _context_uris(resource: AzuremlUri) -> list[str]:
    """Return the URIs under which a context is registered: the SDK's and the portal's."""
    scope = (
        f"/subscriptions/{resource.subscription_id}/resourceGroups/{resource.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/{resource.kind}/{resource.name}"
    )
    return [f"azureml://{resource.host}/mlflow/{version}{scope}" for version in ("v2.0", "v1.0")]


def _cloud_of_host(host: str) -> Any:
    """Return the cloud by the suffix of the host, without a request, unless a variable names it."""
    if os.environ.get("AZUREML_CURRENT_CLOUD") or os.environ.get("ARM_CLOUD_METADATA_URL"):
        return _get_cloud_or_default()
    return _get_cloud_or_default(cloud_and_region(host)[0] or "AzureCloud")


class LinkCredential:
    """The credential of the link that a workspace has at the moment of each call.

    A store lives longer than the connection under which it was created.

    Args:
        workspace_uri: Tracking URI of the workspace; None for a shared registry.
    """

    def __init__(self, workspace_uri: str | None = None) -> None:
        self._workspace_uri = workspace_uri
        # Now and at each call: MLflow removes the variable of the run when it goes on with it,
        # and the store may be older than the variables.
        self._job_token = find_job_token(workspace_uri)
        self._environment_credential: Any = None

    def _current_credential(self) -> Any:
        link = link_of_workspace(self._workspace_uri)
        self._job_token = self._job_token or find_job_token(self._workspace_uri)
        if has_job_token() and self._job_token and (link is None or accepts_job_token(link)):
            return self._job_token
        if link is not None:
            return get_credential(link)
        # Without a connected link, environment and files are read once.
        self._environment_credential = self._environment_credential or get_credential(Link.load())
        return self._environment_credential

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Return a token, in the form that every Azure SDK requests."""
        return self._current_credential().get_token(*scopes, **options)

    def get_token_info(self, *scopes: str, **options: Any) -> Any:
        """Return a token with its attributes, in the form that newer Azure SDKs request."""
        return self._current_credential().get_token_info(*scopes, **options)


def reset_for_tests() -> None:
    """Forget all service contexts, so that the next store reads the settings again."""
    _create_context.cache_clear()
    _AzureMLServiceContextLoader._tracking_uri_to_service_context.clear()
