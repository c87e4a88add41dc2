"""Files: one bad file stops nothing else, and content counts where names and sizes are equal."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from dbx_aml._common.errors import MirrorError
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.artifacts import different_files
from tests.support.mirror import MirrorStores


class Refusal:
    """A fault of the file store: each transfer of a file with some text in its path fails.

    Args:
        monkeypatch: Fixture that ends the fault.
        text: Text in the path.
        error: Error of the transfer.
        is_read: Whether downloads fail, else uploads.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, text: str, error: Exception, *, is_read: bool
    ) -> None:
        download, upload = LocalArtifactRepository._download_file, _upload

        def check(path: str) -> None:
            if text in path:
                raise error

        def download_file(repository: Any, remote_file_path: str, local_path: str) -> None:
            if is_read:
                check(remote_file_path)
            download(repository, remote_file_path, local_path)

        def log_artifact(repository: Any, local_file: str, path: str | None = None) -> None:
            if not is_read:
                check(local_file)
            upload(repository, local_file, path)

        def log_artifacts(
            repository: Any, local_dir: str, artifact_path: str | None = None
        ) -> None:
            for file in sorted(Path(local_dir).rglob("*")):
                if file.is_file():
                    folder = str(file.parent.relative_to(local_dir))
                    log_artifact(repository, str(file), None if folder == "." else folder)

        monkeypatch.setattr(LocalArtifactRepository, "_download_file", download_file)
        monkeypatch.setattr(LocalArtifactRepository, "log_artifact", log_artifact)
        monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", log_artifacts)


_upload = LocalArtifactRepository.log_artifact
REFUSED = MlflowException("PUT bad.bin failed: storage answered 403")
UNAVAILABLE = MlflowException("no answer", TEMPORARILY_UNAVAILABLE)


def destination_files(stores: MirrorStores, run_id: str) -> list[str]:
    (mirrored_id,) = stores.mirrored_ids(run_id)
    return sorted(file.path for file in stores.destination.list_artifacts(mirrored_id))


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("error", [REFUSED, PermissionError("bad.bin"), UNAVAILABLE])
def test_one_bad_file_is_a_fault_of_its_run_and_the_rest_arrives(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch, error: Exception, is_read: bool
) -> None:
    bad_ids = [stores.create_run(f"bad {number}") for number in range(4)]
    for run_id in bad_ids:
        stores.source.log_text(run_id, "x", "bad.bin")
    good_id = stores.create_run("good")
    with monkeypatch.context() as patch:
        Refusal(patch, "bad.bin", error, is_read=is_read)
        results = stores.mirror()
    assert results["good"].status == "done"
    for number, run_id in enumerate(bad_ids):
        result = results[f"bad {number}"]
        assert (result.status, "file 'bad.bin' must be copied" in result.reason) == ("failed", True)
        assert destination_files(stores, run_id) == ["notes"]
        (mirrored_id,) = stores.mirrored_ids(run_id)
        assert stores.destination.get_run(mirrored_id).info.status == "FINISHED"
    assert stores.mirrored_ids(good_id)
    assert {result.status for result in stores.mirror().values()} == {"done"}
    stores.assert_equal()


def test_storage_that_does_not_answer_is_an_outage_and_the_runs_stay_pending(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ids = [stores.create_run(f"run {number}") for number in range(5)]
    with monkeypatch.context() as patch:
        Refusal(patch, "", UNAVAILABLE, is_read=False)
        with pytest.raises(MirrorError, match="both services must answer: got no answer"):
            stores.mirror()
    statuses = {stores.source_tags(run_id)[tags.STATUS] for run_id in run_ids}
    assert statuses == {tags.PENDING}
    assert {result.status for result in stores.mirror().values()} == {"done"}
    stores.assert_equal()


@pytest.mark.parametrize("is_resumed", [True, False])
def test_a_file_overwritten_with_the_same_length_arrives(
    stores: MirrorStores, is_resumed: bool
) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    stores.source.log_text(run_id, "HELLO", "notes/a.txt")
    stores.source.log_text(run_id, "late", "plots/late.txt")
    if is_resumed:
        stores.source.set_terminated(run_id)
        results = stores.mirror()
    else:
        assert stores.mirror() == {}
        results = stores.mirror(is_full=True)
    assert results["run"].status == "done"
    stores.assert_equal()


class FileStore:
    """An artifact repository in memory, whose list tells the sizes that are given.

    Args:
        files: Content and listed size by path.
    """

    def __init__(self, files: dict[str, tuple[bytes, int | None]]) -> None:
        self._files = files

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Return the files."""
        from mlflow.entities import FileInfo

        return [FileInfo(name, False, size) for name, (_, size) in self._files.items()]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        Path(local_path).write_bytes(self._files[remote_file_path][0])


def test_a_file_of_unknown_size_is_compared_by_its_content() -> None:
    source = FileStore({"empty": (b"", None), "other": (b"a", None), "same": (b"b", 1)})
    destination = FileStore({"empty": (b"", 0), "other": (b"b", 1), "same": (b"b", None)})
    sizes: dict[str, int | None] = {"empty": None, "other": None, "same": 1}
    assert list(different_files(source, destination, sizes, compares_content=True)) == ["other"]
    assert different_files(source, destination, sizes, compares_content=False) == {}
