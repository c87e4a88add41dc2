"""An Azure ML workspace with its datastores, computes and environments; only read.

No call asks for a secret. Source: Azure REST API of Azure ML, version 2025-12-01; seen 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dbx_aml._common.errors import NotFoundError
from dbx_aml.link.link import Link
from dbx_aml.serving.aml_resources import AmlResources

# Kind of a datastore -> name of the field with its container.
_CONTAINER_FIELDS = {
    "AzureBlob": "containerName",
    "AzureDataLakeGen2": "filesystem",
    "AzureFile": "fileShareName",
}


@dataclass(frozen=True, kw_only=True)
class WorkspaceDescription:
    """An Azure ML workspace.

    Args:
        name: Name of the workspace.
        resource_group: Its resource group.
        subscription_id: Its subscription.
        location: Its region.
        tenant_id: Tenant of its identity; "" if Azure names none.
        state: Provisioning state.
        tracking_uri: MLflow tracking URI.
        storage_account: Name of its storage account.
        container_registry: Name of its container registry; "" before the first image.
        public_network_access: "Enabled" or "Disabled".
        studio_url: Page in Azure ML studio.
        portal_url: Page in the Azure portal.
        tags: Tags of the workspace.
    """

    name: str
    resource_group: str
    subscription_id: str
    location: str
    tenant_id: str
    state: str
    tracking_uri: str
    storage_account: str
    container_registry: str
    public_network_access: str
    studio_url: str
    portal_url: str
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Datastore:
    """A datastore of the workspace.

    Args:
        name: Name of the datastore.
        kind: For example "AzureBlob".
        account: Storage account; "" for other kinds.
        container: Container, filesystem or share.
        is_default: Whether it is the workspace's default.
        credentials: Kind of its credentials, for example "AccountKey"; never a secret.
        arm_id: ARM id.
    """

    name: str
    kind: str
    account: str
    container: str
    is_default: bool
    credentials: str
    arm_id: str


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A compute of the workspace.

    Args:
        name: Name of the compute.
        kind: For example "AmlCompute", "ComputeInstance" or "Kubernetes".
        state: State of an instance, else the provisioning state.
        vm_size: Type of its machines; "" for an attached compute.
        nodes: Current number of nodes; None if Azure names none.
        max_nodes: Largest number of nodes; None if Azure names none.
        priority: "Dedicated" or "LowPriority"; "" if Azure names none.
        owner: Object id of the user of an instance: the assigned one, else the one who made it; ""
            for other kinds.
        arm_id: ARM id.
    """

    name: str
    kind: str
    state: str
    vm_size: str
    nodes: int | None
    max_nodes: int | None
    priority: str
    owner: str
    arm_id: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentVersion:
    """The newest version of an environment of the workspace.

    Args:
        name: Name of the environment.
        version: Its newest version.
        is_archived: Whether it is archived.
        arm_id: ARM id of the environment.
    """

    name: str
    version: str
    is_archived: bool
    arm_id: str


def describe_workspace(link: Link | None = None) -> WorkspaceDescription:
    """Return the workspace of a link as Azure describes it.

    Args:
        link: Link that has the workspace; by default the connected link.

    Raises:
        LinkError: The link has no workspace, or there is none of its name.
    """
    resources = AmlResources.of_link(link)
    content, workspace = resources.description, resources.workspace
    properties = content.get("properties") or {}
    return WorkspaceDescription(
        name=str(content.get("name") or workspace.workspace_name),
        resource_group=workspace.resource_group,
        subscription_id=workspace.subscription_id,
        location=str(content.get("location") or ""),
        tenant_id=_text(content.get("identity") or {}, "tenantId") or _text(properties, "tenantId"),
        state=_text(properties, "provisioningState"),
        tracking_uri=_text(properties, "mlFlowTrackingUri"),
        storage_account=_text(properties, "storageAccount").rpartition("/")[2],
        container_registry=_text(properties, "containerRegistry").rpartition("/")[2],
        public_network_access=_text(properties, "publicNetworkAccess"),
        studio_url=workspace.studio_url,
        portal_url=workspace.portal_url,
        tags=dict(content.get("tags") or {}),
    )


def list_datastores(link: Link | None = None) -> list[Datastore]:
    """Return the datastores of a link's workspace."""
    return [_datastore(item) for item in AmlResources.of_link(link).list("/datastores")]


def get_datastore(name: str, link: Link | None = None) -> Datastore:
    """Return a datastore of a link's workspace.

    Raises:
        NotFoundError: There is no such datastore.
    """
    return _datastore(_get(AmlResources.of_link(link), "datastore", name))


def list_computes(link: Link | None = None) -> list[Compute]:
    """Return the computes of a link's workspace."""
    return [_compute(item) for item in AmlResources.of_link(link).list("/computes")]


def get_compute(name: str, link: Link | None = None) -> Compute:
    """Return a compute of a link's workspace.

    Raises:
        NotFoundError: There is no such compute.
    """
    return _compute(_get(AmlResources.of_link(link), "compute", name))


def find_compute(resources: AmlResources, name: str) -> Compute | None:
    """Return a compute of a workspace, None if there is no such compute."""
    content = resources.find(_path("compute", name))
    return None if content is None else _compute(content)


def list_environments(link: Link | None = None) -> list[EnvironmentVersion]:
    """Return the environments of a link's workspace, each with its newest version."""
    return [
        EnvironmentVersion(
            name=str(item["name"]),
            version=_text(item["properties"], "latestVersion"),
            is_archived=bool(item["properties"].get("isArchived")),
            arm_id=str(item["id"]),
        )
        for item in AmlResources.of_link(link).list("/environments")
    ]


def _get(resources: AmlResources, noun: str, name: str) -> dict[str, Any]:
    content = resources.find(_path(noun, name))
    if content is None:
        raise NotFoundError(
            f"{noun} must exist in workspace {resources.workspace.workspace_name!r}: got {name!r}; "
            f"list them with 'dbx-aml {noun} list'"
        )
    return content


def _path(noun: str, name: str) -> str:
    return f"/{noun}s/{quote(name, safe='')}"


def _datastore(content: Mapping[str, Any]) -> Datastore:
    properties = content["properties"]
    kind = _text(properties, "datastoreType")
    return Datastore(
        name=str(content["name"]),
        kind=kind,
        account=_text(properties, "accountName"),
        container=_text(properties, _CONTAINER_FIELDS.get(kind, "")),
        is_default=bool(properties.get("isDefault")),
        credentials=_text(properties.get("credentials") or {}, "credentialsType"),
        arm_id=str(content["id"]),
    )


def _compute(content: Mapping[str, Any]) -> Compute:
    properties = content["properties"]
    details = properties.get("properties") or {}
    personal = details.get("personalComputeInstanceSettings") or {}
    return Compute(
        name=str(content["name"]),
        kind=_text(properties, "computeType"),
        state=_text(details, "state") or _text(properties, "provisioningState"),
        vm_size=_text(details, "vmSize"),
        nodes=details.get("currentNodeCount"),
        max_nodes=(details.get("scaleSettings") or {}).get("maxNodeCount"),
        priority=_text(details, "vmPriority"),
        owner=_text(personal.get("assignedUser") or {}, "objectId")
        or _text(details.get("createdBy") or {}, "userId"),
        arm_id=str(content["id"]),
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value)
