"""The settings: each with its origin, what MLflow does with them, which credential they choose."""

from __future__ import annotations

import os
import sys
from typing import Any

from dbx_aml.auth import credential
from dbx_aml.diagnosis.case import Case
from dbx_aml.diagnosis.finding import Finding, failed_by, ok, warning
from dbx_aml.runtimes import running_version
from dbx_aml.settings.layer import conflicts


def settings(case: Case) -> Finding:
    """Tell every setting and who gave it, and who else says something different."""
    if case.problem is not None:
        return failed_by(case.problem)
    link = case.link
    if not case.is_linked:
        return warning(
            "nothing is linked: no config.json was found, no variable DBX_AML_* is set",
            "dbx-aml link set --mode aml --workspace-name ... (see dbx-aml link set --help)",
        )
    parts: dict[str, Any] = dict(vars(link.aml_workspace or {})) | dict(vars(link))
    origins = link.origins or dict.fromkeys(("mode", "registry"), "argument")
    said = "\n".join(f"{name} = {parts.get(name)} ({who})" for name, who in origins.items())
    found = conflicts(case.config)
    if not found:
        return ok(said)
    differing = [
        f"{name}: {counts} ({who}) counts, not " + ", ".join(f"{one} ({by})" for one, by in others)
        for name, ((counts, who), *others) in found.items()
    ]
    sources = dict.fromkeys(who for values in found.values() for _, who in values)
    return warning(
        "\n".join([*differing, said]), f"leave each to one of them: {', '.join(sources)}"
    )


def tracking(case: Case) -> Finding:
    """Tell where MLflow tracks in this process, who said so, and whether the link means another."""
    module = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return _in_force(
        case,
        wanted=case.link.tracking_uri,
        variable="MLFLOW_TRACKING_URI",
        set_by="set_tracking_uri",
        own=getattr(module, "_tracking_uri", None),
        in_force=module.get_tracking_uri() if module else None,
        default="databricks" if running_version() else "a local store in this folder",
    )


def registry(case: Case) -> Finding:
    """Tell where MLflow registers in this process, who said so, and whether the link agrees."""
    module = sys.modules.get("mlflow.tracking._model_registry.utils")
    return _in_force(
        case,
        wanted=case.link.registry_uri,
        variable="MLFLOW_REGISTRY_URI",
        set_by="set_registry_uri",
        own=getattr(module, "_registry_uri", None),
        in_force=module.get_registry_uri() if module else None,
        default="it follows from where MLflow tracks",
    )


def _in_force(
    case: Case,
    *,
    wanted: str | None,
    variable: str,
    set_by: str,
    own: str | None,
    in_force: str | None,
    default: str,
) -> Finding:
    """Compare one of MLflow's two URIs with the link.

    Args:
        case: This one.
        wanted: What the link means; None where only Azure Resource Manager knows it.
        variable: MLflow's.
        set_by: MLflow's function.
        own: What that function was given in this process.
        in_force: What MLflow answers; None where it is not imported, as in a command.
        default: What MLflow does where nobody says anything.
    """
    named = os.environ.get(variable)
    if own:
        connection = getattr(sys.modules.get("dbx_aml.tracking.connect"), "_current", None)
        found, who = own, "dbx_aml.connect" if connection else f"mlflow.{set_by}"
    elif named:
        found, who = named, variable
    elif in_force:
        found, who = in_force, "MLflow's default"
    else:
        found, who = default, "MLflow's default"
    said = f"{found} ({who})"
    if not case.is_linked or wanted is None or found == wanted:
        return ok(said)
    if who == "MLflow's default":
        return ok(f"{said}; dbx_aml.connect() will set {wanted}")
    return warning(
        f"{said}, but the link means {wanted}: plain MLflow code goes elsewhere",
        f"call dbx_aml.connect(), or let {variable} be {wanted}",
    )


def chosen_credential(case: Case) -> Finding:
    """Tell where tokens for Azure come from, and why."""
    found = credential(case.link).describe()
    chosen = next((one for one in found if one.is_chosen), None)
    if chosen is not None:
        return ok(f"{chosen.name}: {chosen.why}")
    said = "; ".join(f"{one.name}: {one.why}" for one in found if one.is_ambient)
    if not case.link.has_aml_side:
        return ok(f"none is set up and none is needed; {said}")
    return warning(
        f"none is set up; {said}",
        "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or another source",
    )


CHECKS = {
    "settings": settings,
    "tracking": tracking,
    "registry": registry,
    "credential": chosen_credential,
}
