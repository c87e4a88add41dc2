"""The stores that MLflow uses for Azure ML: ours, in every program that has this package.

MLflow finds a store by the scheme of its URI and lets entry points name more of them. The scheme
stays `azureml`, so code that knows nothing of this package gets the store as soon as
`MLFLOW_TRACKING_URI` is set, on a cluster as on a laptop, before and after `dbx_aml.connect()`;
a scheme of our own would be another URI in every notebook, and other tools would not know it.

azureml-mlflow has entry points for the same scheme. MLflow loads all of them, the last one
registered wins, and their order is undefined. So this module, while it is loaded, puts its three
builders in the place of azureml-mlflow's: whichever entry point comes last, these run. It costs
nothing, for `import mlflow` has loaded azureml-mlflow's entry points anyway, and where that
package is missing only a store that is asked for says so.

A program that wants the plain stores sets `sys.modules["dbx_aml"] = None` before it imports
MLflow, which then warns that it could not load these entry points.
"""

from typing import Any

try:
    import azureml.mlflow.entry_point_loaders as _loaders
except ImportError:
    # Not ours to report: `import mlflow` must go on.
    _loaders = None


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Return the tracking store of a workspace, by its tracking URI."""
    from dbx_aml.tracking.azureml.store import AmlTrackingStore

    return AmlTrackingStore.of(store_uri)


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Return the model registry of a workspace; runs and models come from `tracking_uri`."""
    from dbx_aml.tracking.azureml.registry_store import AmlModelRegistryStore

    return AmlModelRegistryStore.of(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """Return the artifacts below an `azureml://` artifact URI, of a workspace or a registry."""
    if "/registries/" in artifact_uri:
        from dbx_aml.tracking.azureml.shared_registry_artifacts import SharedRegistryRepository

        return SharedRegistryRepository(artifact_uri, tracking_uri, registry_uri)
    from dbx_aml.tracking.azureml.artifact_repository import AmlArtifactRepository
    from dbx_aml.tracking.azureml.runs_uri_patch import keep_runs_uri_simple

    keep_runs_uri_simple()
    return AmlArtifactRepository(artifact_uri, tracking_uri, registry_uri)


if _loaders is not None:
    _loaders.azureml_store_builder = tracking_store
    _loaders.azureml_model_registry_builder = model_registry_store
    _loaders.azureml_artifacts_builder = artifact_repository
