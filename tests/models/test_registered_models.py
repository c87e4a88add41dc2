"""Versions of a registry as rows, whatever its search leaves out."""

from mlflow import MlflowClient

from dbx_aml.models.copy import list_versions
from dbx_aml.models.registries import Registry


def test_versions_of_mlflows_own_registry_have_their_aliases(mlflow_store: str) -> None:
    client = MlflowClient(mlflow_store, mlflow_store)
    client.create_registered_model("delay")
    for _ in range(2):
        client.create_model_version("delay", "/models/delay")
    client.set_registered_model_alias("delay", "champion", "2")
    client.set_registered_model_alias("delay", "newest", "2")
    versions = list_versions(Registry(mlflow_store, mlflow_store), "delay")
    aliases = {str(version.version): sorted(version.aliases) for version in versions}
    assert aliases == {"1": [], "2": ["champion", "newest"]}
    assert list_versions(Registry(mlflow_store, mlflow_store), "nothing") == []
