"""Artifacts in Azure ML: every listed file has its bytes, and no file ever changes."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, load_text
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from dbx_aml.tracking.azureml import artifact_container, artifact_repository
from dbx_aml.tracking.azureml.artifact_container import ArtifactContainer
from tests.support.azureml import AzureMl
from tests.support.azureml.plain_client import plain_artifacts

pytestmark = pytest.mark.azureml

MIB = 2**20


def file_names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_folders_are_listed_exactly_and_relative_to_the_start_of_the_list(
    azureml_client: MlflowClient, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for name in ("a.txt", "deep/b c é.txt", "deep/er/d#1.txt", "deeper/e.txt", "deep2.txt"):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for number in range(110):
        (source / "deeper" / f"{number:03}").write_text("")
    mlflow.set_experiment("folders")
    with mlflow.start_run() as active_run:
        mlflow.log_artifacts(str(source), "to")
        mlflow.log_artifacts(str(source / "deep"), "to2")
        mlflow.log_text("top", "top.txt")
    run_id, uri = active_run.info.run_id, active_run.info.artifact_uri

    def listed(path: str | None) -> list[tuple[str, bool, int | None]]:
        infos = azureml_client.list_artifacts(run_id, path)
        return [(info.path, info.is_dir, info.file_size) for info in infos]

    assert listed(None) == [("to", True, None), ("to2", True, None), ("top.txt", False, 3)]
    assert listed("to") == [
        ("to/a.txt", False, 5),
        ("to/deep", True, None),
        ("to/deep2.txt", False, 9),
        ("to/deeper", True, None),
    ]
    assert listed("to/deep") == [("to/deep/b c é.txt", False, 15), ("to/deep/er", True, None)]
    assert listed("to/a.txt") == listed("nothing") == []
    # The service lists 100 artifacts a page.
    assert len(listed("to/deeper")) == 111
    relative_paths = ["deep/b c é.txt", "deep/er"]
    by_uri = mlflow.artifacts.list_artifacts(f"{uri}/to/deep")
    assert [info.path for info in by_uri] == relative_paths
    by_repository = get_artifact_repository(f"{uri}/to").list_artifacts("deep")
    assert [info.path for info in by_repository] == relative_paths

    download_artifacts(f"{uri}/to", dst_path=str(tmp_path))
    assert file_names(tmp_path / "to") == file_names(source)
    assert load_text(f"{uri}/to/deep/b c é.txt") == "deep/b c é.txt"
    with pytest.raises(MlflowException, match="Failed to download artifacts from path 'dee'"):
        azureml_client.download_artifacts(run_id, "to/dee")


def test_the_newest_content_of_a_path_is_read_and_a_plain_client_reads_the_first(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    mlflow.set_experiment("again")
    with mlflow.start_run() as active_run:
        uri = active_run.info.artifact_uri
        for content in ("one", "one", "two", "two", "longer"):
            mlflow.log_text(content, "folder/a.txt")
        mlflow.log_text("other", "folder/b.txt")
        registered = azureml.requests(path="artifacts/batch/metadata")
        mlflow.log_text("longer", "folder/a.txt")
        # The same content is not uploaded again.
        assert len(azureml.requests(path="artifacts/batch/metadata")) == len(registered) + 1

    assert load_text(f"{uri}/folder/a.txt") == "longer"
    infos = azureml_client.list_artifacts(active_run.info.run_id, "folder")
    assert [(info.path, info.file_size) for info in infos] == [
        ("folder/a.txt", 6),
        ("folder/b.txt", 5),
    ]
    assert [info.path for info in azureml_client.list_artifacts(active_run.info.run_id)] == [
        "folder"
    ]
    assert Path(download_artifacts(f"{uri}/folder"), "a.txt").read_text() == "longer"
    first = plain_artifacts(uri).download_artifacts("folder/a.txt", str(tmp_path))
    assert Path(first).read_text() == "one"


def test_content_that_another_program_has_written_since_is_read(
    azureml_client: MlflowClient, tmp_path: Path
) -> None:
    mlflow.set_experiment("others")
    with mlflow.start_run() as active_run:
        mlflow.log_text("one", "a.txt")
    uri = active_run.info.artifact_uri
    assert load_text(f"{uri}/a.txt") == "one"
    artifact_repository._run_container.cache_clear()
    repository = artifact_repository.AmlArtifactRepository(uri)
    own_container = repository.container
    (tmp_path / "a.txt").write_text("two, longer")
    artifact_repository._run_container.cache_clear()
    artifact_repository.AmlArtifactRepository(uri).log_artifact(str(tmp_path / "a.txt"))

    assert [info.file_size for info in repository.list_artifacts()] == [11]
    assert repository.container is own_container


def test_a_model_with_a_rewritten_file_is_registered_with_its_newest_content(
    azureml_client: MlflowClient,
) -> None:
    mlflow.set_experiment("registered")
    with mlflow.start_run() as active_run:
        for content in ("one", "two"):
            mlflow.log_text("flavors: {}", "model/MLmodel")
            mlflow.log_text(content, "model/weights.txt")
    run_id = active_run.info.run_id
    azureml_client.create_registered_model("rewritten")

    source = f"{active_run.info.artifact_uri}/model"
    version = azureml_client.create_model_version("rewritten", source, run_id)

    assert version.run_id == run_id
    uri = azureml_client.get_model_version_download_uri("rewritten", version.version)
    assert (uri.startswith(source), load_text(f"{uri}/weights.txt")) == (False, "two")


@pytest.mark.slow
def test_a_failed_upload_is_retried_and_never_looks_present(
    azureml: AzureMl, azureml_client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "2")
    mlflow.set_experiment("failing")
    with mlflow.start_run() as active_run:
        run_id, uri = active_run.info.run_id, active_run.info.artifact_uri
        azureml.fault("status", status=503, host="blob", method="PUT", count=1)
        mlflow.log_text("after an outage", "folder/a.txt")
        azureml.fault("status", status=403, host="blob", method="PUT", count=1)
        mlflow.log_text("after a new permission", "folder/b.txt")
        azureml.fault("status", status=503, host="blob", method="PUT")
        started = time.monotonic()
        with pytest.raises(MlflowException, match=r"PUT folder/c\.txt .*answered 503"):
            mlflow.log_text("never", "folder/c.txt")
        assert time.monotonic() - started < 30
        with pytest.raises(MlflowException, match=r"PUT lost/c\.txt"):
            mlflow.log_text("never", "lost/c.txt")
        azureml.reset()
        infos = azureml_client.list_artifacts(run_id, "folder")
        assert [info.path for info in infos] == ["folder/a.txt", "folder/b.txt"]
        with pytest.raises(MlflowException, match="was registered but never uploaded"):
            load_text(f"{uri}/folder/c.txt")
        # Azure ML never accepts that path again: a later upload has another path.
        mlflow.log_text("at last", "folder/c.txt")
        mlflow.log_text("at last", "folder/c.txt")

    assert load_text(f"{uri}/folder/c.txt") == "at last"
    assert [info.path for info in azureml_client.list_artifacts(run_id)] == ["folder"]
    assert file_names(Path(download_artifacts(f"{uri}/folder"))) == {"a.txt", "b.txt", "c.txt"}


def test_an_upload_whose_answer_was_lost_is_complete(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    mlflow.set_experiment("lost")
    with mlflow.start_run() as active_run:
        uri = active_run.info.artifact_uri
        azureml.fault("lost-answer", host="blob", method="PUT", count=1)
        mlflow.log_text("one", "a.txt")
        azureml.fault("lost-answer", path="contentinfo", count=1)
        assert load_text(f"{uri}/a.txt") == "one"
        # Only the answer to a registration has the upload URI; the path is lost with the answer.
        azureml.fault("lost-answer", path="artifacts/batch/metadata", count=1)
        mlflow.log_text("two", "b.txt")

    assert load_text(f"{uri}/b.txt") == "two"
    infos = azureml_client.list_artifacts(active_run.info.run_id)
    assert [info.path for info in infos] == ["a.txt", "b.txt"]


@pytest.mark.slow
def test_a_killed_upload_leaves_no_file_that_looks_present(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(20 * MIB))
    azureml.fault("delay", host="blob", method="PUT", delay_s=1)
    code = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
with mlflow.start_run() as run:
    print(run.info.run_id, flush=True)
    mlflow.log_artifact(sys.argv[2])
"""
    with azureml.start(code, str(tmp_path / "big.bin")) as program:
        assert program.stdout
        run_id = program.stdout.readline().strip()
        azureml.wait_for(host="blob")
        program.send_signal(signal.SIGKILL)
    azureml.reset()

    assert azureml_client.list_artifacts(run_id) == []
    uri = azureml_client.get_run(run_id).info.artifact_uri
    with pytest.raises(MlflowException, match="was registered but never uploaded"):
        download_artifacts(f"{uri}/big.bin")


@pytest.mark.slow
def test_a_large_file_is_sent_and_read_in_blocks(
    azureml: AzureMl, azureml_client: MlflowClient, tmp_path: Path
) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(MIB) * 64)
    mlflow.set_experiment("large")
    with mlflow.start_run() as active_run:
        mlflow.log_artifact(str(file))
        azureml_uri = f"{active_run.info.artifact_uri}/large.bin"
        blocks_sent = [entry for entry in azureml.requests(host="blob") if entry.method == "PUT"]
        azureml.reset()
        downloaded = download_artifacts(azureml_uri, dst_path=str(tmp_path / "to"))

    assert Path(downloaded).read_bytes() == file.read_bytes()
    # Blocks of 8 MiB, and the list of blocks.
    assert len(blocks_sent) == 64 / 8 + 1
    assert len([entry for entry in azureml.requests(host="blob") if entry.method == "GET"]) > 4


def test_an_artifact_with_endless_failed_uploads_is_missing_after_some_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class EndlessContainer(ArtifactContainer):
        """A run in which every path is registered, and none has bytes."""

        requests = 0

        def list_paths(self, folder: str = "") -> list[str]:
            self._set_last_numbers(f"dbx_aml/again/{number}/a.txt" for number in range(1, 10_000))
            return []

        def _content_uri(self, path: str) -> str | None:
            self.requests += 1
            return "https://store.blob.core.windows.net/container/blob"

        def _register(self, paths: list[str]) -> dict[str, str]:
            return {}

    monkeypatch.setattr(artifact_container, "call_blob", lambda operation, call: None)
    container = EndlessContainer(SimpleNamespace(host_url="https://westeurope.api.azureml.ms"), "")

    assert container.size("a.txt") is None
    # The path itself, the newest 50 uploads, and the path itself at the end.
    assert container.requests == 52
    (tmp_path / "a.txt").touch()
    with pytest.raises(
        MlflowException, match=r"'a\.txt' must be written at most 10,000 times in a run"
    ):
        container.upload({"a.txt": tmp_path / "a.txt"})


@pytest.mark.parametrize(
    "path", ["/home/u/.ssh/authorized_keys", "../x", "a/../../x", "a\\x", "a\x1bx", "", None, 7]
)
def test_a_listed_path_outside_of_its_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: object
) -> None:
    container = ArtifactContainer(SimpleNamespace(), "/artifacts")
    page = {"value": [{"path": "model/MLmodel"}, {"path": path}]}
    monkeypatch.setattr(container, "_call", lambda *_, **__: page)
    with pytest.raises(MlflowException, match="path must stay inside its folder") as caught:
        container.list_paths()
    assert repr(path) in str(caught.value)
    assert container.list_paths("model") == ["model/MLmodel"]
    with pytest.raises(MlflowException, match="path must stay inside its folder"):
        container.download(path, tmp_path / "file")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "..\\x"])
def test_a_run_id_or_an_experiment_is_one_segment_of_the_requests_path(name: str) -> None:
    context = SimpleNamespace(_get_scope=lambda: "/subscriptions/s")
    for experiment, run_id in ((name, "r"), ("e", name)):
        with pytest.raises(MlflowException, match="path must stay inside its folder"):
            ArtifactContainer.from_run(context, experiment, run_id)
