"""Artifacts in Azure ML: what is listed is there, what is there stays."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = [pytest.mark.azureml, pytest.mark.slow]


def _ours(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return found_by(azureml, code, *arguments, plain=False, **options)


def test_folders_are_listed_exactly_and_relative_to_where_one_looks(
    azureml: AzureMl, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for name in ("a.txt", "deep/b c é.txt", "deep/er/d#1.txt", "deeper/e.txt", "deep2.txt"):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for number in range(150):
        (source / "deeper" / f"{number:03}").write_text("")

    found = _ours(
        azureml,
        """
        mlflow.set_experiment("folders")
        with mlflow.start_run() as run:
            mlflow.log_artifacts(sys.argv[2], "to")
            mlflow.log_artifacts(sys.argv[2] + "/deep", "to2")
            mlflow.log_text("top", "top.txt")
        run_id, uri = run.info.run_id, run.info.artifact_uri
        def shown(infos):
            return [[f.path, f.is_dir, f.file_size] for f in infos]
        found["top"] = shown(client.list_artifacts(run_id))
        found["to"] = shown(client.list_artifacts(run_id, "to"))
        found["deep"] = shown(client.list_artifacts(run_id, "to/deep"))
        found["file"] = shown(client.list_artifacts(run_id, "to/a.txt"))
        found["none"] = shown(client.list_artifacts(run_id, "nothing"))
        found["from uri"] = shown(mlflow.artifacts.list_artifacts(uri + "/to/deep"))
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        found["in repository"] = shown(get_artifact_repository(uri + "/to").list_artifacts("deep"))
        found["many"] = len(client.list_artifacts(run_id, "to/deeper"))
        mlflow.artifacts.download_artifacts(uri + "/to", dst_path=sys.argv[3])
        client.download_artifacts(run_id, "to/deep/er", sys.argv[3])
        found["text"] = mlflow.artifacts.load_text(uri + "/to/deep/b c é.txt")
        found["missing"] = error_of(client.download_artifacts, run_id, "to/dee")[1]
        """,
        str(source),
        str(tmp_path),
    )

    assert found["top"] == [["to", True, None], ["to2", True, None], ["top.txt", False, 3]]
    assert found["to"] == [
        ["to/a.txt", False, 5],
        ["to/deep", True, None],
        ["to/deep2.txt", False, 9],
        ["to/deeper", True, None],
    ]
    assert found["deep"] == [["to/deep/b c é.txt", False, 15], ["to/deep/er", True, None]]
    assert found["file"] == found["none"] == []
    assert [path for path, _, _ in found["from uri"]] == ["deep/b c é.txt", "deep/er"]
    assert [path for path, _, _ in found["in repository"]] == ["deep/b c é.txt", "deep/er"]
    assert found["many"] == 151
    got = {p.relative_to(tmp_path / "to") for p in (tmp_path / "to").rglob("*") if p.is_file()}
    assert got == {p.relative_to(source) for p in source.rglob("*") if p.is_file()}
    assert found["text"] == "deep/b c é.txt"
    assert "Failed to download artifacts from path 'dee'" in found["missing"]


def test_the_same_content_again_is_fine_and_other_content_is_one_clear_error(
    azureml: AzureMl,
) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("again")
        with mlflow.start_run() as run:
            mlflow.log_text("one", "a.txt")
            mlflow.log_text("one", "a.txt")
            found["other"] = error_of(mlflow.log_text, "two", "a.txt")[1]
            found["longer"] = error_of(mlflow.log_text, "longer", "a.txt")[1]
        found["text"] = mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt")
        """,
    )

    expected = (
        "artifact 'a.txt' exists with other content, and Azure ML never changes an artifact; "
        "log it under another name"
    )
    assert found == {"other": expected, "longer": expected, "text": "one"}


def test_a_failed_upload_is_tried_again_and_never_looks_present(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        os.environ["DBX_AML_RETRY_TIMEOUT_S"] = "4"
        mlflow.set_experiment("failing")
        with mlflow.start_run() as run:
            fault("status", status=503, host="blob", method="PUT", count=2)
            mlflow.log_text("tried again", "folder/a.txt")
            fault("status", status=403, host="blob", method="PUT", count=1)
            mlflow.log_text("as well", "folder/b.txt")
            fault("status", status=503, host="blob", method="PUT")
            found["failed"] = error_of(mlflow.log_text, "never", "folder/c.txt")
            found["alone"] = error_of(mlflow.log_text, "never", "lost/c.txt")[0]
            admin("reset")
            found["lost"] = [f.path for f in client.list_artifacts(run.info.run_id, "folder")]
            uri = run.info.artifact_uri
            found["read"] = error_of(mlflow.artifacts.load_text, uri + "/folder/c.txt")[1]
            mlflow.log_text("at last", "folder/c.txt")
            found["again"] = error_of(mlflow.log_text, "at last", "folder/c.txt")[1]
            found["other"] = error_of(mlflow.log_text, "another", "folder/c.txt")[1]
        run_id, uri = run.info.run_id, run.info.artifact_uri
        found["listed"] = [f.path for f in client.list_artifacts(run_id)]
        found["folder"] = [f.path for f in client.list_artifacts(run_id, "folder")]
        found["text"] = mlflow.artifacts.load_text(uri + "/folder/c.txt")
        found["download"] = sorted(os.listdir(mlflow.artifacts.download_artifacts(uri + "/folder")))
        """,
    )
    assert "answered 503" in found["failed"][1]
    assert "PUT folder/c.txt" in found["failed"][1]
    assert found["failed"][2] < 8
    assert found["alone"] != ""
    assert found["lost"] == ["folder/a.txt", "folder/b.txt"]
    # Azure ML never takes that path again: what is logged to it later has a second place.
    assert found["again"] == ""
    assert "exists with other content" in found["other"]
    assert found["text"] == "at last"
    assert found["listed"] == ["folder"]
    assert found["folder"] == ["folder/a.txt", "folder/b.txt", "folder/c.txt"]
    assert found["download"] == ["a.txt", "b.txt", "c.txt"]
    assert "artifact 'folder/c.txt' was registered but never uploaded" in found["read"]


def test_lost_answers_are_met(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("lost")
        with mlflow.start_run() as run:
            fault("lost-answer", host="blob", method="PUT", count=1)
            mlflow.log_text("there", "a.txt")
            fault("lost-answer", path="contentinfo", count=1)
            found["text"] = mlflow.artifacts.load_text(run.info.artifact_uri + "/a.txt")
            fault("lost-answer", path="artifacts/batch/metadata", count=1)
            mlflow.log_text("one", "b.txt")
        found["registered"] = mlflow.artifacts.load_text(run.info.artifact_uri + "/b.txt")
        found["listed"] = [f.path for f in client.list_artifacts(run.info.run_id)]
        """,
    )

    assert found["text"] == "there"
    # Only the answer to a registration says where to upload to: without it that place is lost.
    assert found["registered"] == "one"
    assert found["listed"] == ["a.txt", "b.txt"]


def test_a_killed_upload_leaves_nothing_that_looks_present(
    azureml: AzureMl, tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(40 * 2**20))
    azureml.fault("delay", host="blob", method="PUT", delay_s=1)
    with azureml.start(
        """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
with mlflow.start_run() as run:
    print(run.info.run_id, flush=True)
    mlflow.log_artifact(sys.argv[2])
""",
        str(tmp_path / "big.bin"),
    ) as client:
        assert client.stdout
        run_id = client.stdout.readline().strip()
        azureml.wait_for(host="blob")
        client.send_signal(signal.SIGKILL)
    azureml.reset()

    found = _ours(
        azureml,
        """
        found["listed"] = [f.path for f in client.list_artifacts(sys.argv[2])]
        uri = client.get_run(sys.argv[2]).info.artifact_uri
        found["read"] = error_of(mlflow.artifacts.download_artifacts, uri + "/big.bin")[1]
        """,
        run_id,
    )

    assert found["listed"] == []
    assert "was registered but never uploaded" in found["read"]


def test_a_large_file_is_streamed_in_blocks(azureml: AzureMl, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(2**20) * 300)
    (tmp_path / "to").mkdir()
    started = time.monotonic()

    found = _ours(
        azureml,
        """
        import resource
        mlflow.set_experiment("large")
        with mlflow.start_run() as run:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            mlflow.log_artifact(sys.argv[2])
            got = mlflow.artifacts.download_artifacts(
                run.info.artifact_uri + "/large.bin", dst_path=sys.argv[3])
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["grown_mib"] = (after - before) / 1024
        found["same"] = open(sys.argv[2], "rb").read() == open(got, "rb").read()
        """,
        str(file),
        str(tmp_path / "to"),
        environment={"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
    )

    assert found["same"]
    assert found["grown_mib"] < 200
    assert time.monotonic() - started < 120
