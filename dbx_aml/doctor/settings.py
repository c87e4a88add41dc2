"""The settings: each with its origin, what MLflow does with them, which credential they choose."""

from __future__ import annotations

from typing import Any

from dbx_aml.azure.credentials import credential
from dbx_aml.doctor.check_result import Finding, failed_by, ok, warning
from dbx_aml.doctor.checks import Case
from dbx_aml.link.link_layers import conflicts
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.tracking.active_uris import DEFAULT, Said, registry_in_force, tracking_in_force


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
    parts: dict[str, Any] = {
        **(vars(link.aml_workspace) if link.aml_workspace else {}),
        **vars(link),
    }
    origins = link.origins or dict.fromkeys(("mode", "registry"), "argument")
    said = "\n".join(
        f"{name} = {_short(parts[name])} ({who})" for name, who in origins.items() if name in parts
    )
    found = conflicts(case.config) if link.origins else {}
    if not found:
        return ok(said)
    differing = [
        f"{name}: {_short(counts)} ({who}) counts, not "
        + ", ".join(f"{_short(one)} ({by})" for one, by in others)
        for name, ((counts, who), *others) in found.items()
    ]
    sources = dict.fromkeys(who for values in found.values() for _, who in values)
    return warning(
        "\n".join([*differing, said]), f"leave each to one of them: {', '.join(sources)}"
    )


def tracking(case: Case) -> Finding:
    """Tell where MLflow tracks in this process, who said so, and whether the link means another."""
    return _compared(case, tracking_in_force(), case.link.tracking_uri, "MLFLOW_TRACKING_URI")


def registry(case: Case) -> Finding:
    """Tell where MLflow registers in this process, who said so, and whether the link agrees."""
    return _compared(case, registry_in_force(), case.link.registry_uri, "MLFLOW_REGISTRY_URI")


def _compared(case: Case, found: Said, wanted: str | None, variable: str) -> Finding:
    said = f"{_short(found.uri)} ({found.who})"
    if not case.is_linked or wanted is None or found.uri == wanted:
        return ok(said)
    if found.who == DEFAULT:
        return ok(f"{said}; dbx_aml.connect() will set {_short(wanted)}")
    return warning(
        f"{said}, but the link means {_short(wanted)}: plain MLflow code goes elsewhere",
        f"call dbx_aml.connect(), or do not set {variable}",
    )


def _short(value: Any) -> str:
    """Return a value as text; of Azure ML's long URIs only what tells them apart."""
    text = str(value)
    if not is_azureml_uri(text):
        return text
    host, *_, name = text.partition("://")[2].split("/")
    return f"azureml://{host}/.../{name}"


def chosen_credential(case: Case) -> Finding:
    """Tell where tokens for Azure come from, and why."""
    found = credential(case.link).describe()
    chosen = next((one for one in found if one.is_chosen), None)
    if chosen is not None:
        return ok(f"{chosen.name}: {chosen.why}")
    said = "; ".join(f"{one.name}: {one.why}" for one in found if one.is_ambient)
    if not case.link.uses_azure_ml:
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
