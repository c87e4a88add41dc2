"""A model that is small enough to be served in seconds, registered in the stand-in of Azure ML."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dbx_aml import AmlWorkspace, Link, register_model
from dbx_aml.link.secret_reference import SecretRef
from dbx_aml.serving.environment import resolve_environment
from dbx_aml.serving.job_environment import resolve_job_environment
from tests.support.azureml.service_process import AzureMl

EXAMPLE = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})


def small_requirements() -> list[str]:
    """The packages that a pyfunc model needs, in the versions of this process."""
    import cloudpickle
    import mlflow

    return [
        f"mlflow-skinny=={mlflow.__version__}",
        f"pandas=={pd.__version__}",
        f"numpy=={np.__version__}",
        f"cloudpickle=={cloudpickle.__version__}",
    ]


@contextmanager
def without_proxies() -> Iterator[None]:
    """Let uv reach the package index of this machine, not the stand-in's proxy."""
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


@pytest.fixture(scope="session")
def resolved_job_environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Requirements of jobs that uv has resolved before the stand-in's proxy is in its way."""
    with without_proxies():
        resolve_job_environment(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="session")
def resolved_requirements(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Requirements that uv has resolved before the stand-in's proxy is in the way of uv."""
    import mlflow.pyfunc

    folder = tmp_path_factory.mktemp("resolved") / "model"
    with without_proxies():
        mlflow.pyfunc.save_model(
            folder, python_model=times(10), pip_requirements=small_requirements()
        )
        resolve_environment(folder)
    return small_requirements()


def times(factor: float) -> Callable[[pd.DataFrame], Any]:
    """A model that answers `factor * x + y`, and refuses a negative x."""

    def predict(model_input: pd.DataFrame) -> Any:
        if (model_input["x"] < 0).any():
            raise ValueError("x is negative")
        return (model_input["x"] * factor + model_input["y"]).to_numpy()

    return predict


RegisterFunction = Callable[..., str]


@pytest.fixture
def register(resolved_requirements: list[str], azureml_client: Any) -> RegisterFunction:
    """Return a function that registers a model and returns the URI of its version."""
    import mlflow

    def register_times(
        factor: float = 10, name: str = "delay", *, alias: str | None = None, **options: Any
    ) -> str:
        fields: dict[str, Any] = {
            "python_model": times(factor),
            "input_example": EXAMPLE,
            "pip_requirements": resolved_requirements,
            **options,
        }
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(name="model", **fields)
        version = register_model(info.model_uri, name, alias=alias)
        return f"models:/{name}/{version.version}"

    return register_times


@pytest.fixture
def link(azureml: AzureMl) -> Link:
    """A link to the stand-in's workspace."""
    workspace = AmlWorkspace.from_tracking_uri(azureml.tracking_uri)
    return Link(mode="aml", aml_workspace=workspace)


@pytest.fixture
def config_folder(link: Link, tmp_path: Path) -> Path:
    """A folder with the link's config.json."""
    link_config(link, tmp_path)
    return tmp_path


def move_identity_to(link: Link, monkeypatch: pytest.MonkeyPatch) -> Link:
    """Return a link that names the caller and no region, and take both out of the environment."""
    assert link.aml_workspace is not None
    names = link.aml_workspace
    monkeypatch.setenv("TEAM_SECRET", os.environ["AZURE_CLIENT_SECRET"])
    tenant_id, client_id = os.environ["AZURE_TENANT_ID"], os.environ["AZURE_CLIENT_ID"]
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    return Link(
        mode="aml",
        aml_workspace=AmlWorkspace(
            subscription_id=names.subscription_id,
            resource_group=names.resource_group,
            workspace_name=names.workspace_name,
        ),
        tenant_id=tenant_id,
        client_id=client_id,
        client_secret=SecretRef(env="TEAM_SECRET"),
    )


def link_config(link: Link, folder: Path) -> str:
    """Write the config.json of a link into a folder; return its path."""
    return str(link.save(folder / "config.json"))
