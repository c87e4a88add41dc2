"""Fixtures of the tests of models: a link to the stand-ins of both services."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dbx_aml.link.connected_link import set_connected_link
from dbx_aml.link.link import Link
from dbx_aml.link.workspace import AmlWorkspace
from tests.support.azureml import AzureMl
from tests.support.databricks import Databricks
from tests.support.models import XY, save_model, weighted_sum


@pytest.fixture
def linked(
    databricks: Databricks,
    azureml: AzureMl,
    mlflow_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Link:
    """A connected link in mode "dual": registries are Unity Catalog and a workspace."""
    for name, text in azureml.environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    databricks.catalogs.add_schema("main.ml")
    workspace = AmlWorkspace.from_tracking_uri(azureml.tracking_uri)
    link = Link(mode="dual", aml_workspace=workspace)
    set_connected_link(link)
    return link


@pytest.fixture
def aml_registry(linked: Link) -> MlflowClient:
    """A client of the workspace's registry."""
    return MlflowClient(linked.aml_tracking_uri, linked.aml_tracking_uri)


@pytest.fixture
def uc_registry(linked: Link, mlflow_store: str) -> MlflowClient:
    """A client of Unity Catalog, which has version 1 of "main.ml.delay"."""
    return MlflowClient(mlflow_store, "databricks-uc")


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    """The folder of a saved model with a large file beside it."""
    folder = Path(save_model(tmp_path, weighted_sum, XY))
    (folder / "weights").mkdir()
    (folder / "weights" / "größe.bin").write_bytes(bytes(range(256)) * 4096)
    return folder


@pytest.fixture
def uc_version(uc_registry: MlflowClient, saved_model: Path) -> str:
    """The URI of a version in Unity Catalog with tags, a description and an alias."""
    return register_in(uc_registry, "main.ml.delay", saved_model)


def register_in(client: MlflowClient, name: str, folder: Path) -> str:
    """Register a saved model with tags, a description and an alias; return its URI."""
    client.create_registered_model(name)
    version = client._create_model_version(
        name,
        str(folder),
        tags={"team": "größe", "stage": "test"},
        description="Delay in minutes",
        await_creation_for=30,
        local_model_path=str(folder),
    )
    client.set_registered_model_alias(name, "champion", str(version.version))
    return f"models:/{name}/{version.version}"


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a folder by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


Download = Callable[[MlflowClient, str], dict[str, str]]
