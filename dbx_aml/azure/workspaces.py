"""An Azure ML workspace as its services describe it; everything here only reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from dbx_aml._common.errors import (
    DbxAmlError,
    LinkError,
    NotFoundError,
    PermissionDeniedError,
)
from dbx_aml._common.http import send
from dbx_aml._common.retry import RetryPolicy
from dbx_aml.azure.client import REQUEST_TIMEOUT_S, AzureClient, resource_url
from dbx_aml.link.workspace import AmlWorkspace

ROLE = "AzureML Data Scientist"


def check_host(workspace: AmlWorkspace, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
    """Return the host of the workspace's tracking server, once it has answered.

    Raises:
        ServiceUnavailableError: The host does not answer within the time.
    """
    host = _tracking_host(workspace)
    send("GET", f"https://{host}/", RetryPolicy(timeout_s=timeout_s, max_attempts=1))
    return host


def check_workspace(client: AzureClient, workspace: AmlWorkspace) -> None:
    """Search the workspace's experiments for one, as the first call of each run does.

    Raises:
        LinkError: There is no such workspace, or the caller may not read it.
        ServiceError: The tracking server does not answer, or with an error.
    """
    api = f"https://{_tracking_host(workspace)}/mlflow/v2.0{workspace.arm_id}"
    try:
        with workspace_errors(workspace):
            client.post_query(f"{api}/api/2.0/mlflow/experiments/search", {"max_results": 1})
    except LinkError as error:
        if isinstance(error.__cause__, NotFoundError):
            # Only Azure Resource Manager says which of the three names does not exist.
            _check_names(client, workspace)
        raise


def _check_names(client: AzureClient, workspace: AmlWorkspace) -> None:
    """Raise the error of Azure Resource Manager about the names of a workspace, if it has one.

    Raises:
        LinkError: The subscription, the resource group or the workspace does not exist, or the
            workspace has another tracking server.
    """
    try:
        uri = read_properties(client, workspace).get("mlFlowTrackingUri")
    except LinkError as error:
        if isinstance(error.__cause__, NotFoundError):
            raise
        return
    except DbxAmlError:
        return
    host = urlsplit(str(uri)).netloc
    if uri and host != _tracking_host(workspace):
        raise LinkError(
            f"tracking URI of workspace {workspace.workspace_name!r} must have its host {host!r}: "
            f"got {_tracking_host(workspace)!r}; set DBX_AML_AML_TRACKING_URI to {uri!r}"
        )


def read_properties(client: AzureClient, workspace: AmlWorkspace) -> dict[str, Any]:
    """Return the workspace's properties in Azure Resource Manager, as its storage account.

    Raises:
        LinkError: There is no such workspace, or the caller may not read it.
        ServiceError: Azure Resource Manager does not answer, or with an error.
    """
    with workspace_errors(workspace):
        return dict(client.get(resource_url(workspace)).get("properties") or {})


def with_tracking_uri(client: AzureClient, workspace: AmlWorkspace) -> AmlWorkspace:
    """Return the workspace with the tracking URI that Azure Resource Manager has for it.

    No request is sent for a workspace that already has a tracking URI.

    Raises:
        LinkError: There is no such workspace, the caller may not read it, or it has no URI.
        ServiceError: Azure Resource Manager does not answer, or with an error.
    """
    if workspace.known_tracking_uri is not None:
        return workspace
    uri = read_properties(client, workspace).get("mlFlowTrackingUri")
    if not uri:
        raise LinkError(
            f"workspace {workspace.workspace_name!r} must have a tracking URI: got none; "
            "set DBX_AML_REGION or DBX_AML_AML_TRACKING_URI"
        )
    return workspace.at_tracking_uri(uri)


def _tracking_host(workspace: AmlWorkspace) -> str:
    return urlsplit(workspace.tracking_uri).netloc


@contextmanager
def workspace_errors(workspace: AmlWorkspace) -> Iterator[None]:
    """Name the workspace in an error about a missing resource or permission."""
    try:
        yield
    except NotFoundError as err:
        subscription = f"subscription {workspace.subscription_id!r}"
        group = f"resource group {workspace.resource_group!r}"
        rule, step = {
            "SubscriptionNotFound": (
                f"{subscription} must exist in the tenant of the sign-in",
                "compare subscription_id and the tenant",
            ),
            "ResourceGroupNotFound": (
                f"{group} must exist in {subscription}",
                "compare resource_group",
            ),
        }.get(
            err.code,
            (
                f"workspace {workspace.workspace_name!r} must exist in {group} of {subscription}",
                "compare workspace_name",
            ),
        )
        raise LinkError(f"{rule}: {err}; {step} with the workspace's page in the portal") from err
    except PermissionDeniedError as err:
        raise LinkError(
            f"caller must be allowed to use workspace {workspace.workspace_name!r}: {err}; "
            f"ask for the role {ROLE!r}"
        ) from err
