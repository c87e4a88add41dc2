"""Blobs: bytes go to the storage of the workspace's cloud, and nowhere else."""

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml import blob_upload
from dbx_aml.tracking.azureml.blob_upload import call_blob, open_blob, upload_blob
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
