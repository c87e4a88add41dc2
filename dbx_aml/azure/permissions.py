"""The actions that the caller's roles allow in an Azure ML workspace, looked up, never tried."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.workspaces import workspace_errors
from dbx_aml.link.workspace import AmlWorkspace

_PROVIDER = "Microsoft.MachineLearningServices/workspaces"
_API_VERSION = "2022-04-01"
CREATE_RUNS = "create runs"
# Azure's names of the actions that a step needs. Source: Azure resource provider operations of
# Microsoft.MachineLearningServices; seen 2026-11.
ACTIONS = {
    name: tuple(f"{_PROVIDER}/{action}" for action in actions)
    for name, actions in {
        CREATE_RUNS: ("experiments/runs/write",),
        "write artifacts": ("metadata/artifacts/write",),
        "register models": ("models/write",),
        "deploy endpoints": (
            "codes/versions/write",
            "environments/versions/write",
            "onlineEndpoints/write",
            "onlineEndpoints/deployments/write",
            "onlineEndpoints/deployments/getLogs/action",
            "onlineEndpoints/listKeys/action",
        ),
        "submit jobs": (
            "codes/versions/write",
            "computes/read",
            "environments/versions/write",
            "jobs/write",
            "jobs/cancel/action",
        ),
        "clean up": (
            "jobs/delete",
            "models/versions/delete",
            "onlineEndpoints/delete",
            "onlineEndpoints/deployments/delete",
        ),
    }.items()
}


def allowed_actions(client: AzureClient, workspace: AmlWorkspace) -> dict[str, bool]:
    """Return for each step of `ACTIONS` whether the caller's roles allow all of its actions.

    Raises:
        LinkError: There is no such workspace, or the caller may not look up permissions.
        ServiceError: Azure Resource Manager does not answer, or with an error.

    Source:
        Azure REST API, "Permissions - List For Resource"; Microsoft Learn, "Manage access to an
        Azure Machine Learning workspace"; seen 2026-11.
    """
    url = (
        f"https://{workspace.hosts.arm}{workspace.arm_id}/providers/Microsoft.Authorization"
        f"/permissions?api-version={_API_VERSION}"
    )
    with workspace_errors(workspace):
        roles = client.get(url).get("value") or []
    return {
        name: all(any(_role_allows(role, action) for role in roles) for action in actions)
        for name, actions in ACTIONS.items()
    }


def _role_allows(role: Mapping[str, Any], action: str) -> bool:
    def has_pattern(field: str) -> bool:
        patterns = role.get(field) or []
        return any(fnmatchcase(action.lower(), str(pattern).lower()) for pattern in patterns)

    return has_pattern("actions") and not has_pattern("notActions")
