"""The pages of runs, experiments and model versions."""

import mlflow
import pytest

import dbx_aml
from dbx_aml.models.pages import experiment_url, model_version_url, run_url
from tests.support.azureml.workspace import Workspace

HOST = "https://adb-1.2.azuredatabricks.net"
ARM_ID = (
    "/subscriptions/8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg-ml"
    "/providers/Microsoft.MachineLearningServices"
)
AZURE_ML = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{ARM_ID}/workspaces/mlw-team"
CHINA = f"azureml://chinaeast2.api.ml.azure.cn/mlflow/v1.0{ARM_ID}/workspaces/mlw-team"
SHARED = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{ARM_ID}/registries/shared"


@pytest.fixture(autouse=True)
def databricks_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", f"{HOST}/")
    monkeypatch.setenv("DATABRICKS_TOKEN", "token")
    monkeypatch.delenv("AZURE_TENANT_ID", raising=False)


@pytest.mark.parametrize(
    ("uri", "run_page", "experiment_page"),
    [
        (
            "https://ana:secret@ml.contoso.com/a/",
            "https://ml.contoso.com/a/#/experiments/7/runs/r",
            "https://ml.contoso.com/a/#/experiments/7",
        ),
        (
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/#/experiments/7/runs/r",
            "http://127.0.0.1:5000/#/experiments/7",
        ),
        ("databricks", f"{HOST}/ml/experiments/7/runs/r", f"{HOST}/ml/experiments/7"),
        (
            AZURE_ML,
            f"https://ml.azure.com/runs/r?wsid={ARM_ID}/workspaces/mlw-team",
            f"https://ml.azure.com/experiments/id/7?wsid={ARM_ID}/workspaces/mlw-team",
        ),
        (
            CHINA,
            f"https://studio.ml.azure.cn/runs/r?wsid={ARM_ID}/workspaces/mlw-team",
            f"https://studio.ml.azure.cn/experiments/id/7?wsid={ARM_ID}/workspaces/mlw-team",
        ),
        ("sqlite:////data/mlflow.db", None, None),
        ("/data/mlruns", None, None),
    ],
)
def test_runs_and_experiments_have_pages_where_their_server_has_pages(
    uri: str, run_page: str | None, experiment_page: str | None
) -> None:
    assert run_url("r", "7", tracking_uri=uri) == run_page
    assert experiment_url("7", tracking_uri=uri) == experiment_page


@pytest.mark.parametrize(
    ("uri", "name", "page"),
    [
        ("http://127.0.0.1:5000", "delay", "http://127.0.0.1:5000/#/models/delay/versions/3"),
        ("databricks", "delay", f"{HOST}/ml/models/delay/versions/3"),
        (
            "databricks-uc",
            "main.ml.delay",
            f"{HOST}/explore/data/models/main/ml/delay/version/3",
        ),
        (
            AZURE_ML,
            "delay",
            f"https://ml.azure.com/model/delay:3/details?wsid={ARM_ID}/workspaces/mlw-team",
        ),
        (SHARED, "delay", "https://ml.azure.com/registries/shared/models/delay/version/3"),
        ("sqlite://", "delay", None),
    ],
)
def test_a_model_version_has_a_page_where_its_registry_has_pages(
    uri: str, name: str, page: str | None
) -> None:
    assert model_version_url(name, 3, registry_uri=uri) == page


def test_an_id_with_other_characters_stays_in_its_place() -> None:
    assert run_url("r/../x?y", "7/8", tracking_uri="databricks") == (
        f"{HOST}/ml/experiments/7%2F8/runs/r%2F..%2Fx%3Fy"
    )


def test_the_page_in_the_studio_names_the_tenant_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "contoso.onmicrosoft.com")
    for url in (
        run_url("r", tracking_uri=AZURE_ML),
        experiment_url("7", tracking_uri=AZURE_ML),
        model_version_url("m", 1, registry_uri=AZURE_ML),
    ):
        assert url is not None
        assert url.endswith("/workspaces/mlw-team&tid=contoso.onmicrosoft.com")
    assert model_version_url("m", 1, registry_uri=SHARED) == (
        "https://ml.azure.com/registries/shared/models/m/version/1?tid=contoso.onmicrosoft.com"
    )


def test_the_server_is_asked_for_the_experiment_that_a_page_needs(
    mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as run:
        pass
    # The store has no pages; it gets no request.
    assert dbx_aml.run_url("no run") is None
    assert dbx_aml.experiment_url("7") is None
    assert dbx_aml.model_version_url("m", 1) is None
    monkeypatch.setattr("dbx_aml.models.pages._server_page", lambda uri: "https://server/#")
    page = f"https://server/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert dbx_aml.run_url(run.info.run_id) == page


def test_mlflow_prints_the_pages_of_the_studio(
    azureml_client: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    with mlflow.start_run(run_name="one") as run:
        pass
    lines = capsys.readouterr().out.splitlines()
    scope = Workspace().scope
    studio, experiment_id = "https://ml.azure.com", run.info.experiment_id
    assert lines[-2].startswith(
        f"🏃 View run one at: {studio}/runs/{run.info.run_id}?wsid={scope}&tid="
    )
    assert lines[-1].startswith(
        f"🧪 View experiment at: {studio}/experiments/id/{experiment_id}?wsid={scope}&tid="
    )


def test_mlflow_prints_no_link_where_it_shall_print_none(
    azureml_client: mlflow.MlflowClient,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with mlflow.start_run():
        pass
    assert "https://" not in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["adb-1.2.azuredatabricks.net", f"{HOST}/?o=12", f"{HOST}/#"])
def test_a_page_can_be_opened_whatever_form_the_setting_of_the_host_has(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", setting)
    assert run_url("r", "7", tracking_uri="databricks") == f"{HOST}/ml/experiments/7/runs/r"
    page = model_version_url("main.ml.delay", 3, registry_uri="databricks-uc")
    assert page == f"{HOST}/explore/data/models/main/ml/delay/version/3"
