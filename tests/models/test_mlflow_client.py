"""The client of this package's own calls: it keeps to the HTTP policy, and its lists end."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import FileInfo

from dbx_aml._common.errors import ArgumentError, ServiceError, ServiceUnavailableError
from dbx_aml.models.mlflow_client import create_client, get_metric_history, list_all_artifacts
from dbx_aml.models.model_files import locate_model
from dbx_aml.models.model_uri import ModelUri
from tests.support.http.scripted_server import ScriptedServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "1")
    server = ScriptedServer()
    yield server
    server.stop()


def test_a_server_that_asks_to_wait_for_an_hour_is_one_error_at_once(
    server: ScriptedServer,
) -> None:
    server.responses = [(429, {"Retry-After": "3600"})] * 9
    client = create_client(server.url)
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match="429, which asks to wait 3600 s") as caught:
        client.search_experiments()
    assert time.monotonic() - started < 30
    assert len(server.requests) == 1
    assert "\n" not in str(caught.value)


def test_a_server_that_drips_its_answer_is_left_at_the_end_of_the_time(
    server: ScriptedServer,
) -> None:
    server.drip_s, server.chunks = 0.05, [b" "] * 2000
    client = create_client(server.url)
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=r"host 127\.0\.0\.1 must answer"):
        client.get_run("0" * 32)
    assert time.monotonic() - started < 30


def test_a_server_that_recovers_is_asked_again(server: ScriptedServer) -> None:
    server.responses = [(500, {}), (200, {})]
    server.chunks = [json.dumps({"experiments": []}).encode()]
    assert create_client(server.url).search_experiments() == []
    assert len(server.requests) == 2


def test_the_same_token_again_ends_the_points_of_a_metric(server: ScriptedServer) -> None:
    page = {
        "metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": 1}],
        "next_page_token": "again",
    }
    server.chunks = [json.dumps(page).encode()]
    with pytest.raises(ServiceError, match=r"pages of metrics/get-history must end: .*'again'"):
        get_metric_history(create_client(server.url), "0" * 32, "m")
    assert len(server.requests) == 2


def test_all_points_of_a_metric_are_read_in_their_pages(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run("0").info.run_id
    for step in range(3):
        client.log_metric(run_id, "m", float(step), step=step)
    points = get_metric_history(create_client(uri), run_id, "m")
    assert [point.value for point in points] == [0.0, 1.0, 2.0]


def listing(*entries: tuple[str, bool]) -> list[FileInfo]:
    return [FileInfo(path, is_dir, None if is_dir else 1) for path, is_dir in entries]


def test_the_files_of_all_folders_are_listed() -> None:
    folders = {
        None: listing(("a", True), ("b.txt", False)),
        "a": listing(("a/c", True), ("a/d.txt", False)),
        "a/c": listing(("a/c/e.txt", False)),
    }
    files = list_all_artifacts(folders.__getitem__)
    assert [file.path for file in files] == ["b.txt", "a/d.txt", "a/c/e.txt"]
    assert [file.path for file in list_all_artifacts(folders.__getitem__, "a/c")] == ["a/c/e.txt"]


@pytest.mark.parametrize(
    "list_folder",
    [
        lambda folder: listing(("a", True)),
        lambda folder: listing((f"{folder}/a", True)),
    ],
    ids=["in itself", "ever deeper"],
)
def test_folders_without_an_end_are_an_error(
    list_folder: Callable[[str | None], list[FileInfo]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbx_aml.models.mlflow_client.MAX_PAGES", 50)
    with pytest.raises(ServiceError, match="folders of artifacts must end"):
        list(list_all_artifacts(list_folder))


@pytest.mark.parametrize("is_of_a_version", [True, False])
def test_a_listing_of_a_models_files_ends_in_time(
    server: ScriptedServer, tmp_path: Path, is_of_a_version: bool
) -> None:
    server.responses = [(429, {"Retry-After": "3600"})] * 99
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    location = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/1"
    run = client.create_run(client.create_experiment("tests", artifact_location=location))
    client.create_registered_model("delay")
    client.create_model_version("delay", f"{run.info.artifact_uri}/model", run.info.run_id)
    uri = "models:/delay/1" if is_of_a_version else f"runs:/{run.info.run_id}/model"
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match="429, which asks to wait 3600 s"):
        list(
            list_all_artifacts(locate_model(ModelUri.parse(uri), client).repository.list_artifacts)
        )
    assert time.monotonic() - started < 30
    assert len(server.requests) == 1


def test_a_storage_whose_package_is_missing_is_one_line() -> None:
    def list_folder(path: str | None) -> list[FileInfo]:
        raise ModuleNotFoundError("No module named 'boto3'")

    with pytest.raises(ServiceError, match="got \"No module named 'boto3'\"; install it"):
        list(list_all_artifacts(list_folder))


def test_a_scheme_that_mlflow_does_not_know_is_wrong_usage() -> None:
    with pytest.raises(ArgumentError, match="scheme that MLflow knows: got 'mlfow://h'; use"):
        create_client("mlfow://h?token=secret")
