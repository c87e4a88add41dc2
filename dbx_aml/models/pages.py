"""URLs of the pages of runs, experiments and model versions."""

from __future__ import annotations

import os
from functools import cache
from urllib.parse import quote, unquote, urlsplit

from dbx_aml._common.errors import LinkError
from dbx_aml._common.redact import redact_uri
from dbx_aml.azure.credential_sources import tenant_of_link
from dbx_aml.link.clouds import CLOUDS, cloud_and_region
from dbx_aml.link.connected_link import connected_link
from dbx_aml.link.uris import (
    is_azureml_uri,
    is_databricks_uri,
    is_unity_catalog_uri,
    parse_azureml_uri,
)
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.models.mlflow_client import create_client, databricks_host


def run_url(
    run_id: str, experiment_id: str | None = None, *, tracking_uri: str | None = None
) -> str | None:
    """Return the URL of a run's page: in Databricks, in Azure ML studio or in MLflow's server.

    Args:
        run_id: Id of the run.
        experiment_id: Id of the run's experiment. Without the id, MLflow reads the run; a page of
            Azure ML needs no experiment.
        tracking_uri: For example "https://mlflow.contoso.com"; by default MLflow's own.

    Returns:
        None for a server without pages, and for a Databricks workspace that is not configured.
    """
    tracking_uri = tracking_uri or _active_uri()
    if is_azureml_uri(tracking_uri):
        return _workspace(tracking_uri).run_url(run_id, tenant_id=_tenant_id())
    server = _server_page(tracking_uri)
    if server is None:
        return None
    if experiment_id is None:
        experiment_id = str(create_client(tracking_uri).get_run(run_id).info.experiment_id)
    return f"{server}/experiments/{_quote(experiment_id)}/runs/{_quote(run_id)}"


def experiment_url(experiment_id: str, *, tracking_uri: str | None = None) -> str | None:
    """Return the URL of an experiment's page.

    Args:
        experiment_id: Id of the experiment.
        tracking_uri: MLflow tracking URI; by default MLflow's own.

    Returns:
        None as from `run_url`.
    """
    tracking_uri = tracking_uri or _active_uri()
    if is_azureml_uri(tracking_uri):
        workspace = _workspace(tracking_uri)
        return workspace.experiment_url(experiment_id, tenant_id=_tenant_id())
    server = _server_page(tracking_uri)
    return f"{server}/experiments/{_quote(experiment_id)}" if server else None


def model_version_url(
    name: str, version: str | int, *, registry_uri: str | None = None
) -> str | None:
    """Return the URL of the page of a model version.

    Args:
        name: Name of the registered model, for example "main.ml.delay" in Unity Catalog.
        version: Number of the version.
        registry_uri: MLflow registry URI; by default MLflow's own.

    Returns:
        None as from `run_url`.
    """
    if registry_uri is None:
        import mlflow

        registry_uri = mlflow.get_registry_uri()
    resource = parse_azureml_uri(registry_uri)
    if resource is not None and resource.kind == "registries":
        cloud = CLOUDS[cloud_and_region(resource.host)[0] or "AzureCloud"]
        model = f"{_quote(unquote(resource.name))}/models/{_quote(name)}"
        tenant_id = _tenant_id()
        tenant = f"?tid={_quote(tenant_id)}" if tenant_id else ""
        return f"https://{cloud.studio}/registries/{model}/version/{version}{tenant}"
    if is_azureml_uri(registry_uri):
        workspace = _workspace(registry_uri)
        return workspace.model_version_url(name, version, tenant_id=_tenant_id())
    if is_unity_catalog_uri(registry_uri):
        host = _databricks_host_or_none(registry_uri)
        path = "/".join(map(_quote, name.split(".")))
        return f"{host}/explore/data/models/{path}/version/{version}" if host else None
    server = _server_page(registry_uri)
    return f"{server}/models/{_quote(name)}/versions/{version}" if server else None


def _active_uri() -> str:
    import mlflow

    return str(mlflow.get_tracking_uri())


def _workspace(uri: str) -> AmlWorkspace:
    return AmlWorkspace.from_tracking_uri(uri)


def _tenant_id() -> str | None:
    """Return the tenant that the settings name."""
    link = connected_link()
    return tenant_of_link(link) if link is not None else os.environ.get("AZURE_TENANT_ID")


def _server_page(uri: str) -> str | None:
    """Return the root of the pages of a server other than Azure ML."""
    if uri.startswith(("http://", "https://")):
        return f"{redact_uri(uri).rstrip('/')}/#"
    if is_databricks_uri(uri):
        host = _databricks_host_or_none(uri)
        return f"{host}/ml" if host else None
    return None


def _quote(identifier: str) -> str:
    """Return an id as a part of a path: it is the service's text."""
    return quote(identifier, safe="")


def _databricks_host_or_none(uri: str) -> str | None:
    """Return the workspace's URL without path and query, as databricks-sdk reads its setting."""
    host = ("" if "://" in uri else os.environ.get("DATABRICKS_HOST")) or _profile_host(uri)
    if not host:
        return None
    parts = urlsplit(host if "://" in host else f"https://{host}")
    return f"{parts.scheme}://{parts.netloc}"


@cache
def _profile_host(uri: str) -> str | None:
    """Return the workspace's URL; MLflow may call the host to find it, so the URL is kept."""
    try:
        return databricks_host(uri)
    except LinkError:
        return None
