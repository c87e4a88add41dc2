"""The resources of an Azure ML workspace in Azure Resource Manager, with a caller's credential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from dbx_aml._common.errors import LinkError
from dbx_aml.azure.client import OPERATION_TIMEOUT_S, AzureClient, resource_url
from dbx_aml.azure.credential_sources import tenant_of_link
from dbx_aml.azure.credentials import Credential, get_credential
from dbx_aml.azure.workspaces import with_tracking_uri, workspace_errors
from dbx_aml.link.connected_link import current_link
from dbx_aml.link.link import Link
from dbx_aml.link.workspace import AmlWorkspace

# Longest time for the answer to a request that reads.
_READ_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class AmlResources:
    """The resources of a workspace.

    Args:
        link: Link that has the workspace.
    """

    link: Link

    @classmethod
    def of_link(cls, link: Link | None = None) -> Self:
        """Return the resources of a link's workspace; by default of the connected link.

        Raises:
            LinkError: The link has no Azure ML workspace.
        """
        link = link or current_link()
        if link.aml_workspace is None:
            raise LinkError(
                "link must have an Azure ML workspace: got none; set it with 'dbx-aml link set'"
            )
        return cls(link)

    @property
    def workspace(self) -> AmlWorkspace:
        """Azure ML workspace."""
        assert self.link.aml_workspace is not None
        return self.link.aml_workspace

    @property
    def credential(self) -> Credential:
        """Credential of the caller."""
        return get_credential(self.link)

    @property
    def tenant_id(self) -> str | None:
        """Tenant of the link, for the studio's pages."""
        return tenant_of_link(self.link)

    @cached_property
    def tracking_uri(self) -> str:
        """MLflow tracking URI; of a workspace without a region Azure Resource Manager has it.

        Raises:
            LinkError: There is no such workspace, or the caller may not read it.
        """
        return with_tracking_uri(self.client, self.workspace).tracking_uri

    @cached_property
    def client(self) -> AzureClient:
        """Client for Azure Resource Manager."""
        return AzureClient(self.credential, _READ_TIMEOUT_S)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The workspace as Azure Resource Manager describes it.

        Raises:
            LinkError: There is no such workspace, or the caller may not read it.
        """
        with workspace_errors(self.workspace):
            return self.client.get(self.url())

    @property
    def location(self) -> str:
        """Region of the workspace, for example "westeurope"."""
        return str(self.description["location"])

    def url(self, path: str = "") -> str:
        """Return the URL of a resource, for example of "/onlineEndpoints/delay"."""
        return resource_url(self.workspace, path)

    def arm_id(self, path: str) -> str:
        """Return the ARM id of a resource, for example of "/models/delay/versions/3"."""
        return f"{self.workspace.arm_id}{path}"

    def find(self, path: str) -> dict[str, Any] | None:
        """Return a resource, None if there is no such resource."""
        return self.client.find(self.url(path))

    def list(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the resources of a collection, for example of "/onlineEndpoints"."""
        return self.client.list(self.url(path))

    def put(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float = OPERATION_TIMEOUT_S,
        show_command: str = "",
    ) -> dict[str, Any]:
        """Create or replace a resource; see `AzureClient.put`."""
        return self.client.put(self.url(path), body, timeout_s=timeout_s, show_command=show_command)
