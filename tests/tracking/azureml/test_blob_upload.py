"""Blobs: bytes go to the storage of the workspace's cloud, and nowhere else."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from mlflow.exceptions import MlflowException

from dbx_aml._common.fork_gate import delay_forks
from dbx_aml._common.http import Transfer
from dbx_aml.tracking.azureml import blob_upload
from dbx_aml.tracking.azureml.blob_upload import call_blob, has_content, open_blob, upload_blob
from tests.support.http.redirecting_server import redirecting_server

SERVICE_URL = "https://westeurope.api.azureml.ms"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://store.collector.example/c/b?sig=x", "https://store.collector.example"),
        ("http://store.blob.core.windows.net/c/b?sig=x", "http://store.blob.core.windows.net"),
        (
            "https://store.blob.core.usgovcloudapi.net/c/b?sig=x",
            "https://store.blob.core.usgovcloudapi.net",
        ),
    ],
)
def test_a_blob_elsewhere_is_not_opened_and_the_error_names_its_host(uri: str, shown: str) -> None:
    with pytest.raises(MlflowException) as caught:
        open_blob(uri, SERVICE_URL)
    message = str(caught.value)
    assert f"bytes must go to Azure's storage over https: got '{shown}'; ask" in message
    assert "sig" not in message


def test_a_blob_of_the_cloud_of_the_service_is_opened() -> None:
    for uri, service_url in (
        ("https://store.blob.core.windows.net/c/b?sig=x", SERVICE_URL),
        ("https://store.z01.blob.storage.azure.net/c/b?sig=x", SERVICE_URL),
        (
            "https://store.blob.core.chinacloudapi.cn/c/b?sig=x",
            "https://e1d0.workspace.chinaeast2.api.ml.azure.cn",
        ),
    ):
        assert open_blob(uri, service_url).blob_name == "b"


def test_a_blob_with_the_beginning_of_a_file_has_other_content(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("one\ntwo\n")

    def blob_with(content: bytes) -> Any:
        downloader = SimpleNamespace(chunks=lambda: iter([content]))
        return SimpleNamespace(download_blob=lambda: downloader)

    assert has_content(blob_with(b"one\ntwo\n"), file, Transfer())
    assert not has_content(blob_with(b"one\n"), file, Transfer())
    assert not has_content(blob_with(b"one\ntwo\nthree\n"), file, Transfer())


def test_a_redirect_of_the_storage_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("rows")
    monkeypatch.setattr(blob_upload, "check_storage_url", lambda *_: None)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with redirecting_server() as (url, requests_elsewhere):
        blob = open_blob(f"{url}/account/c/b?sig=x", SERVICE_URL)
        with pytest.raises(MlflowException, match="storage answered 307"):
            call_blob("PUT a.txt", lambda transfer: upload_blob(blob, file, transfer))
    assert requests_elsewhere == []


class StubBlob:
    """A blob that takes a number of connections, as Azure's client does."""

    def __init__(self, *, is_interpreter_ending: bool = False) -> None:
        self.is_interpreter_ending = is_interpreter_ending
        self.connections: list[int] = []
        self.content = b""

    def upload_blob(self, stream: BinaryIO, *, length: int, max_concurrency: int) -> None:
        self.connections.append(max_concurrency)
        self.content = stream.read(length)
        if self.is_interpreter_ending and max_concurrency > 1:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")


@pytest.mark.parametrize(
    ("is_interpreter_ending", "is_in_background", "connections"),
    [(False, False, [4]), (True, False, [4, 1]), (False, True, [1])],
)
def test_an_upload_starts_threads_only_where_the_program_may_wait_for_them(
    *,
    is_interpreter_ending: bool,
    is_in_background: bool,
    connections: list[int],
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("rows")
    blob = StubBlob(is_interpreter_ending=is_interpreter_ending)
    with delay_forks() if is_in_background else nullcontext():
        assert call_blob("PUT a.txt", lambda transfer: upload_blob(blob, file, transfer))  # type: ignore[arg-type]
    assert (blob.connections, blob.content) == (connections, b"rows")
