"""The link's settings with their origins, MLflow's active URIs, and the selected credential."""

from __future__ import annotations

from typing import Any

from dbx_aml.azure.credentials import get_credential
from dbx_aml.doctor.check_result import CheckResult, failed_with, ok, warning
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.link.link_layers import conflicting_values
from dbx_aml.link.uris import is_azureml_uri
from dbx_aml.tracking.active_uris import (
    MLFLOW_DEFAULT,
    UriWithOrigin,
    active_registry_uri,
    active_tracking_uri,
)


def check_settings(context: CheckContext) -> CheckResult:
    """Report each setting with its origin, and settings with different values in two origins."""
    if context.link_error is not None:
        return failed_with(context.link_error)
    link = context.link
    if not context.is_configured:
        return warning(
            "nothing is linked: there is no config.json and no variable DBX_AML_*",
            "dbx-aml link set --mode aml --workspace-name ... (see dbx-aml link set --help)",
        )
    values: dict[str, Any] = {
        **(vars(link.aml_workspace) if link.aml_workspace else {}),
        **vars(link),
    }
    origins = link.origins or dict.fromkeys(("mode", "registry"), "argument")
    settings = "\n".join(
        f"{name} = {_shorten_uri(values[name])} ({origin})"
        for name, origin in origins.items()
        if name in values
    )
    conflicting = conflicting_values(context.config) if link.origins else {}
    if not conflicting:
        return ok(settings)
    differences = [
        f"{name}: {_shorten_uri(value)} ({origin}) is used, not "
        + ", ".join(f"{_shorten_uri(value)} ({origin})" for value, origin in ignored)
        for name, ((value, origin), *ignored) in conflicting.items()
    ]
    origins_in_conflict = dict.fromkeys(
        origin for values_of_name in conflicting.values() for _, origin in values_of_name
    )
    return warning(
        "\n".join([*differences, settings]),
        f"set each value in one place only: {', '.join(origins_in_conflict)}",
    )


def check_tracking(context: CheckContext) -> CheckResult:
    """Compare MLflow's active tracking URI with the link's."""
    uri = context.link.tracking_uri
    return _compare_uris(context, active_tracking_uri(), uri, "MLFLOW_TRACKING_URI")


def check_registry(context: CheckContext) -> CheckResult:
    """Compare MLflow's active registry URI with the link's."""
    uri = context.link.registry_uri
    return _compare_uris(context, active_registry_uri(), uri, "MLFLOW_REGISTRY_URI")


def _compare_uris(
    context: CheckContext, active: UriWithOrigin, link_uri: str | None, variable: str
) -> CheckResult:
    message = f"{_shorten_uri(active.uri)} ({active.origin})"
    if not context.is_configured or link_uri is None or active.uri == link_uri:
        return ok(message)
    if active.origin == MLFLOW_DEFAULT:
        return ok(f"{message}; dbx_aml.connect() will set {_shorten_uri(link_uri)}")
    return warning(
        f"{message} is not the link's {_shorten_uri(link_uri)}: plain MLflow code ignores the link",
        f"call dbx_aml.connect(), or unset {variable}",
    )


def _shorten_uri(value: Any) -> str:
    """Return a value as text, and only the host and the workspace of an Azure ML URI."""
    text = str(value)
    if not is_azureml_uri(text):
        return text
    host, *_, name = text.partition("://")[2].split("/")
    return f"azureml://{host}/.../{name}"


def check_credential(context: CheckContext) -> CheckResult:
    """Report the credential source that is used for Azure, and why."""
    credential = get_credential(context.link)
    selected = credential.selected_source()
    if selected is not None:
        return ok(f"{selected.name}: {selected.reason}")
    missing = "; ".join(
        f"{source.name}: {source.reason}"
        for source in credential.describe_sources()
        if source.is_ambient
    )
    if not context.link.uses_azure_ml:
        return ok(f"none is set up, and the link needs none; {missing}")
    return warning(
        f"none is set up; {missing}",
        "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or another source",
    )


CHECKS = {
    "settings": check_settings,
    "tracking": check_tracking,
    "registry": check_registry,
    "credential": check_credential,
}
