"""Entry points of MLflow: the stores for Azure ML in every program that has this package.

MLflow finds a store by the scheme of its URI; entry points can register more stores. The scheme
stays `azureml`, so code that does not import this package gets the store as soon as
`MLFLOW_TRACKING_URI` is set, on a cluster and on a laptop, before and after `dbx_aml.connect()`.
A new scheme would change the URI in every notebook, and other tools would not know it.

azureml-mlflow has entry points for the same scheme. MLflow loads all of them, the last registered
wins, and their order is undefined. So this module, while Python imports it, replaces the three
builders of azureml-mlflow with its own: whichever entry point comes last, these builders run. The
import costs nothing extra, because `import mlflow` loads azureml-mlflow's entry points anyway.
Without azureml-mlflow, an error comes only when a program opens a store of Azure ML.

A program that wants the plain stores sets `sys.modules["dbx_aml"] = None` before it imports
MLflow. MLflow then warns that it could not load these entry points.
"""

from typing import Any

try:
    import azureml.mlflow.entry_point_loaders as _loaders
    from azureml.mlflow._internal.service_context_loader import _AzureMLServiceContextLoader
except ImportError:
    # `import mlflow` must work without azureml-mlflow.
    _loaders = None


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Return the tracking store of the workspace that a tracking URI names."""
    from dbx_aml.tracking.azureml.run_links_patch import patch_run_links
    from dbx_aml.tracking.azureml.store import AmlTrackingStore

    patch_run_links()
    return AmlTrackingStore.from_uri(store_uri)


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Return the model registry of a workspace; runs and logged models are at `tracking_uri`."""
    from dbx_aml.tracking.azureml.registry_store import AmlModelRegistryStore

    return AmlModelRegistryStore.from_uri(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """Return the artifacts below an `azureml://` artifact URI, of a workspace or a registry."""
    if "/registries/" in artifact_uri:
        from dbx_aml.tracking.azureml.shared_registry_artifacts import SharedRegistryRepository

        return SharedRegistryRepository(artifact_uri, tracking_uri, registry_uri)
    from dbx_aml.tracking.azureml.artifact_repository import AmlArtifactRepository
    from dbx_aml.tracking.azureml.runs_uri_patch import patch_runs_uri

    patch_runs_uri()
    return AmlArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def service_context(store_uri: str) -> Any:
    """Return workspace and credential for azureml-mlflow's other clients, as of deployments."""
    from dbx_aml.tracking.azureml.service_context import service_context_of

    return service_context_of(store_uri)


if _loaders is not None:
    _loaders.azureml_store_builder = tracking_store
    _loaders.azureml_model_registry_builder = model_registry_store
    _loaders.azureml_artifacts_builder = artifact_repository
    # Its own would send a token to any host that the URI names.
    _AzureMLServiceContextLoader.load_service_context = staticmethod(service_context)
