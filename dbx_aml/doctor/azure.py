"""Azure ML: a token, the workspace, and the caller's permissions in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dbx_aml._common.errors import CredentialError
from dbx_aml.azure.client import AzureClient
from dbx_aml.azure.credentials import get_credential
from dbx_aml.azure.identity import Identity
from dbx_aml.azure.permissions import ACTIONS, allowed_actions
from dbx_aml.azure.workspaces import ROLE, read_properties
from dbx_aml.azure.workspaces import check_workspace as check_workspace_access
from dbx_aml.doctor.check_result import CheckResult, SkippedError, failed, failed_with, ok, warning
from dbx_aml.doctor.checks import CheckContext, SharedValue
from dbx_aml.link.workspace import AmlWorkspace


def aml_workspace(context: CheckContext) -> AmlWorkspace:
    """Return the link's Azure ML workspace.

    Raises:
        SkippedError: The link does not use Azure ML.
    """
    link = context.link
    if not link.uses_azure_ml:
        raise SkippedError(f"the link does not use Azure ML: its mode is '{link.mode}'")
    if link.aml_workspace is None:
        raise SkippedError(f"{link.aml_tracking_uri} replaces Azure ML")
    return link.aml_workspace


def identity(context: CheckContext) -> SharedValue[Identity]:
    """Return the identity in a token for Azure."""

    def verify_credential() -> Identity:
        aml_workspace(context)
        return get_credential(context.link).verify(context.seconds_left)

    return context.shared_value("token", verify_credential)


def workspace_properties(context: CheckContext) -> SharedValue[dict[str, Any]]:
    """Return the workspace's properties in Azure Resource Manager."""

    def read() -> dict[str, Any]:
        workspace = aml_workspace(context)
        identity(context).get_or_skip()
        return read_properties(_client(context), workspace)

    return context.shared_value("workspace", read)


def check_token(context: CheckContext) -> CheckResult:
    """Get a token for Azure."""
    try:
        return ok(f"for {identity(context).get()}")
    except CredentialError as err:
        result = failed_with(err)
    if "no answer" in result.message:
        return replace(result, fix="see the check 'sign-in host'")
    return result


def check_workspace(context: CheckContext) -> CheckResult:
    """Read the workspace from Azure Resource Manager and from its tracking server."""
    properties = workspace_properties(context).get()
    workspace = aml_workspace(context)
    if workspace.known_tracking_uri is None and properties.get("mlFlowTrackingUri"):
        workspace = workspace.at_tracking_uri(properties["mlFlowTrackingUri"])
    check_workspace_access(_client(context), workspace)
    is_private = properties.get("publicNetworkAccess") == "Disabled"
    access = ", only through a private endpoint" if is_private else ""
    tenant = properties.get("tenantId") or "unknown"
    return ok(
        f"{workspace.workspace_name} in {workspace.resource_group} of tenant {tenant} answers"
        f"{access}"
    )


def check_actions(context: CheckContext) -> CheckResult:
    """Read which actions the caller's roles allow, without trying an action."""
    workspace = aml_workspace(context)
    identity(context).get_or_skip()
    actions = allowed_actions(_client(context), workspace)
    allowed = ", ".join(action for action, is_allowed in actions.items() if is_allowed)
    denied = [action for action, is_allowed in actions.items() if not is_allowed]
    if not denied:
        return ok(f"may {allowed}")
    message = f"may not {', '.join(denied)}" + (f"; may {allowed}" if allowed else "")
    fix = (
        f"ask for the role '{ROLE}' on workspace '{workspace.workspace_name}', or one with "
        + ", ".join(dict.fromkeys(action for step in denied for action in ACTIONS[step]))
    )
    required = {"create runs", "write artifacts"} if context.link.mode in ("aml", "dual") else set()
    if context.link.registry == "aml":
        required.add("register models")
    return failed(message, fix) if required & set(denied) else warning(message, fix)


def _client(context: CheckContext) -> AzureClient:
    return AzureClient(get_credential(context.link), context.seconds_left)


CHECKS = {"token": check_token, "workspace": check_workspace, "actions": check_actions}
