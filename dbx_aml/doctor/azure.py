"""The Azure ML side: a token, the workspace, and what the caller may do there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dbx_aml._common.errors import CredentialError
from dbx_aml.azure.credentials import credential
from dbx_aml.azure.identity import Identity
from dbx_aml.azure.workspaces import ACTIONS, permissions, read_properties, read_workspace
from dbx_aml.doctor.check_result import Finding, SkippedError, failed, failed_by, ok, warning
from dbx_aml.doctor.checks import Case, Fact
from dbx_aml.link.workspace import AmlWorkspace

_ROLE = "AzureML Data Scientist"


def aml_workspace(case: Case) -> AmlWorkspace:
    """Return the workspace that the link leads to.

    Raises:
        SkippedError: It leads to none.
    """
    link = case.link
    if not link.uses_azure_ml:
        raise SkippedError(f"no Azure ML side in the link: its mode is '{link.mode}'")
    if link.aml_workspace is None:
        raise SkippedError(f"{link.aml_tracking_uri} stands in for Azure ML")
    return link.aml_workspace


def identity(case: Case) -> Fact[Identity]:
    """Whom a token for Azure is for."""

    def ask() -> Identity:
        aml_workspace(case)
        return credential(case.link).verify(case.left_s)

    return case.fact("token", ask)


def properties(case: Case) -> Fact[dict[str, Any]]:
    """What Azure Resource Manager says of the workspace."""

    def ask() -> dict[str, Any]:
        workspace = aml_workspace(case)
        identity(case).needed()
        return read_properties(workspace, credential(case.link), case.left_s)

    return case.fact("workspace", ask)


def token(case: Case) -> Finding:
    """Get a token for Azure."""
    try:
        return ok(f"for {identity(case).asked()}")
    except CredentialError as err:
        found = failed_by(err)
    if "no answer" in found.said:
        return replace(found, fix="see the check 'sign-in host'")
    return found


def workspace(case: Case) -> Finding:
    """Read the workspace, from both of its sides."""
    found = properties(case).asked()
    ours = aml_workspace(case)
    if ours.tracking_uri is None and found.get("mlFlowTrackingUri"):
        ours = replace(ours, tracking_uri=found["mlFlowTrackingUri"])
    read_workspace(ours, credential(case.link), case.left_s)
    closed = found.get("publicNetworkAccess") == "Disabled"
    access = ", reached through a private endpoint only" if closed else ""
    return ok(f"{ours.workspace_name} in {ours.resource_group} is there and answers{access}")


def actions(case: Case) -> Finding:
    """Look up what the caller's roles allow; nothing is tried."""
    ours = aml_workspace(case)
    identity(case).needed()
    found = permissions(ours, credential(case.link), case.left_s)
    may = ", ".join(name for name, allowed in found.items() if allowed)
    lacks = [name for name, allowed in found.items() if not allowed]
    if not lacks:
        return ok(f"may {may}")
    said = f"may not {', '.join(lacks)}" + (f"; may {may}" if may else "")
    fix = (
        f"ask for the role '{_ROLE}' on workspace '{ours.workspace_name}', or one with "
        + ", ".join(ACTIONS[name] for name in lacks)
    )
    needed = {"create runs", "write artifacts"} if case.link.mode in ("aml", "dual") else set()
    if case.link.registry == "aml":
        needed.add("register models")
    return failed(said, fix) if needed & set(lacks) else warning(said, fix)


CHECKS = {"token": token, "workspace": workspace, "actions": actions}
