"""Which workspace a URI means, and with which identity Azure ML is asked: azureml-mlflow's context.

azureml-mlflow builds its own from a chain of credentials that ends in asking a person, with no
bound on the time; ours never does. It is put where azureml-mlflow looks first, so that everything
else in that package uses it too.
"""

import os
import re
from functools import lru_cache
from threading import Lock
from typing import Any

from azureml.mlflow._common._authentication.azureml_token_authentication import (
    AzureMLTokenAuthentication,
)
from azureml.mlflow._common._cloud.cloud import _get_cloud_or_default
from azureml.mlflow._internal.service_context_loader import (
    _AzureMLServiceContextLoader,
    _mlflow_env_vars_set,
)
from azureml.mlflow._internal.utils import RegistryServiceContext, ServiceContext
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml.azure.credentials import credential
from dbx_aml.link.link import Link
from dbx_aml.tracking.connect import connected_link

_URI = re.compile(
    r"(?:azureml|adbazureml)://(?P<host>[^/?]+)/.*?/subscriptions/(?P<subscription>[^/?]+)"
    r"/resourceGroups/(?P<group>[^/?]+)/providers/Microsoft\.MachineLearningServices"
    r"/(?P<kind>workspaces|registries)/(?P<name>[^/?]+)",
    re.IGNORECASE,
)
_CLOUDS = {"cn": "AzureChinaCloud", "us": "AzureUSGovernment"}
_lock = Lock()


def names_workspace(uri: str | None) -> bool:
    """Tell whether a URI says which workspace it means; `azureml://artifacts/...` does not."""
    return bool(uri and _URI.match(uri))


def same_workspace(one: str, other: str) -> bool:
    """Tell whether two URIs name the same workspace, whatever follows it."""
    found = [_URI.match(uri) for uri in (one, other)]
    parts = [match.groups() if match else None for match in found]
    return None not in parts and len({str(part[1:]).lower() for part in parts if part}) == 1


def context_of(uri: str) -> Any:
    """Return the service context of a workspace or a registry; the same one each time.

    Args:
        uri: Tracking, registry or artifact URI.

    Raises:
        MlflowException: The URI names none.
    """
    found = _URI.match(uri)
    if found is None:
        raise MlflowException(
            "Azure ML URI must name subscription, resource group and workspace: "
            f"got {uri.split('?')[0]!r}; copy the tracking URI from the workspace's page",
            INVALID_PARAMETER_VALUE,
        )
    with _lock:
        return _given_context(**found.groupdict()) or _context(**found.groupdict())


@lru_cache(maxsize=64)
def _context(host: str, subscription: str, group: str, kind: str, name: str) -> Any:
    cloud = _cloud(host)
    same: dict[str, Any] = {
        "subscription_id": subscription,
        "resource_group_name": group,
        "host_url": f"https://{host}",
        "cloud": cloud,
    }
    if kind.lower() == "registries":
        return RegistryServiceContext(registry_name=name, auth=_CredentialInUse(), **same)
    auth = _job_token(same, name) if _mlflow_env_vars_set() else _CredentialInUse()
    context = ServiceContext(workspace_name=name, auth=auth, **same)
    for uri in _keys(host, context._get_scope()):
        _AzureMLServiceContextLoader.add_service_context(uri, context)
    return context


def shared_registry_context(host: str, name: str) -> Any:
    """Return the service context of a registry that is known by its name alone."""
    return RegistryServiceContext(
        subscription_id=None,
        resource_group_name=None,
        registry_name=name,
        auth=_CredentialInUse(),
        host_url=None,
        cloud=_cloud(host),
    )


def _given_context(host: str, subscription: str, group: str, kind: str, name: str) -> Any:
    """Return what somebody handed to azureml-mlflow for this workspace, for example its SDK."""
    scope = (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.MachineLearningServices/{kind}/{name}"
    )
    for uri in _keys(host, scope):
        if _AzureMLServiceContextLoader.has_service_context(uri):
            return _AzureMLServiceContextLoader.get_service_context(uri)
    return None


def _keys(host: str, scope: str) -> list[str]:
    """The names that one workspace's context has: the portal's URI and the SDK's."""
    return [f"azureml://{host}/mlflow/{version}{scope}" for version in ("v2.0", "v1.0")]


def _cloud(host: str) -> Any:
    """Return the cloud without asking for it: its host's suffix tells, unless a variable does."""
    if os.environ.get("AZUREML_CURRENT_CLOUD") or os.environ.get("ARM_CLOUD_METADATA_URL"):
        return _get_cloud_or_default()
    return _get_cloud_or_default(_CLOUDS.get(host.rpartition(".")[2].lower(), "AzureCloud"))


def _job_token(context: dict[str, Any], workspace_name: str) -> Any:
    """Return the identity of the Azure ML job that this process is: its variables say so."""
    return AzureMLTokenAuthentication.create(
        azureml_access_token=os.environ["MLFLOW_TRACKING_TOKEN"],
        expiry_time=None,
        host=context["host_url"],
        subscription_id=context["subscription_id"],
        resource_group_name=context["resource_group_name"],
        workspace_name=workspace_name,
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        experiment_id=os.environ.get("MLFLOW_EXPERIMENT_ID"),
        run_id=os.environ["MLFLOW_RUN_ID"],
    )


class _CredentialInUse:
    """The credential of the link in force: a store outlives the connection it was made under."""

    def __init__(self) -> None:
        self._found: Any = None

    def _now(self) -> Any:
        link = connected_link()
        if link is not None:
            return credential(link)
        # Nothing is connected: what the environment and the files say is read once.
        self._found = self._found or credential(Link.load())
        return self._found

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """Return a token, as every Azure SDK asks for it."""
        return self._now().get_token(*scopes, **options)

    def get_token_info(self, *scopes: str, **options: Any) -> Any:
        """Return a token with what is known of it, as newer Azure SDKs ask for it."""
        return self._now().get_token_info(*scopes, **options)
