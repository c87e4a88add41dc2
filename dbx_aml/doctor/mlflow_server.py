"""MLflow servers that a link uses in the place of Databricks or Azure ML."""

from __future__ import annotations

from dbx_aml.doctor.check_result import CheckResult, SkippedError, ok
from dbx_aml.doctor.checks import CheckContext
from dbx_aml.link.link import Link
from dbx_aml.link.uris import is_azureml_uri, is_databricks_uri
from dbx_aml.tracking.servers import check_tracking_server


def check_mlflow_server(context: CheckContext) -> CheckResult:
    """Search the experiments of each MLflow server that replaces one of the two services."""
    uris = _server_uris(context.link)
    if not uris:
        raise SkippedError("no MLflow server replaces Databricks or Azure ML in the link")
    for uri in uris:
        # Opening a database would create a missing one.
        if _is_remote(uri):
            check_tracking_server(uri, context.seconds_left)
    return ok("; ".join(f"{uri} {'answers' if _is_remote(uri) else 'is local'}" for uri in uris))


def needs_mlflow(link: Link) -> bool:
    """Tell whether the check will import MLflow."""
    return any(_is_remote(uri) for uri in _server_uris(link))


def _server_uris(link: Link) -> list[str]:
    """Return the tracking URIs of a link that lead to neither Databricks nor Azure ML."""
    uris = [link.aml_tracking_uri] if link.uses_azure_ml else []
    if link.mode != "aml" or link.registry != "aml":
        uris.append(link.databricks_tracking_uri)
    return [uri for uri in uris if uri and not is_azureml_uri(uri) and not is_databricks_uri(uri)]


def _is_remote(uri: str) -> bool:
    return uri.partition("://")[0] in ("http", "https")


CHECKS = {"MLflow server": check_mlflow_server}
