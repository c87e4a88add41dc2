"""Prove in a process of its own, without any network, that what was added works with the rest.

A runtime's package that is newer than azureml-mlflow allows is kept, so its limits prove nothing:
this does. Run as `python -m dbx_aml.cluster.node.plugin_proof`; exit 0, or a traceback.
"""

import os
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from threading import Thread
from typing import Any

from dbx_aml.cluster.node.requirements import ENTRY_POINT_GROUPS

_CONTENT = b"dbx-aml" * 1000
_WORKSPACE = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    "00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/"
    "Microsoft.MachineLearningServices/workspaces/proof"
)


def main() -> None:
    """Run every proof."""
    os.environ.update(
        # No call of the clients below may go through a proxy, or ask which cloud this is.
        NO_PROXY="127.0.0.1",
        AZUREML_CURRENT_CLOUD="AzureCloud",
        # The only store that mlflow-skinny has without a database.
        MLFLOW_ALLOW_FILE_STORE="true",
        MLFLOW_LOGGING_LEVEL="ERROR",
    )
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)
    _entry_points_load()
    _our_stores_are_used()
    with tempfile.TemporaryDirectory() as folder:
        _run_is_kept(Path(folder))
    _blob_goes_and_comes()


def _entry_points_load() -> None:
    for group in ENTRY_POINT_GROUPS:
        found = [one for one in entry_points(group=group) if one.name == "azureml"]
        if not found:
            raise RuntimeError(f"no entry point azureml in {group}")
        for one in found:
            one.load()


def _our_stores_are_used() -> None:
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    stores: list[Any] = [
        tracking._get_store(_WORKSPACE),
        registry._get_store(_WORKSPACE, _WORKSPACE),
    ]
    for store in stores:
        if not type(store).__module__.startswith("dbx_aml."):
            raise RuntimeError(f"MLflow uses {type(store).__module__} for azureml://")


def _run_is_kept(folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri(), registry_uri=folder.as_uri())
    run_id = client.create_run(client.create_experiment("proof")).info.run_id
    client.log_metric(run_id, "metric", 12.5)
    client.log_param(run_id, "param", "value")
    client.set_terminated(run_id)
    run = client.get_run(run_id)
    if (run.data.metrics, run.data.params) != ({"metric": 12.5}, {"param": "value"}):
        raise RuntimeError(f"MLflow read back {run.data.metrics} and {run.data.params}")


class _Blobs(BaseHTTPRequestHandler):
    """As much of a blob store as one file there and back needs."""

    def do_PUT(self) -> None:
        """Take a blob."""
        self.server.content = self.rfile.read(  # type: ignore[attr-defined]
            int(self.headers["Content-Length"])
        )
        self._answer(201, b"")

    def do_GET(self) -> None:
        """Give it back, as the range that the client asks for."""
        self._answer(206, self.server.content)  # type: ignore[attr-defined]

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
        self.send_header("x-ms-blob-type", "BlockBlob")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def _blob_goes_and_comes() -> None:
    from azure.storage.blob import BlobClient

    with ThreadingHTTPServer(("127.0.0.1", 0), _Blobs) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        # As azureml-mlflow does it: its own artifact client is no more than these two calls.
        url = f"http://127.0.0.1:{server.server_port}/account/container/blob"
        with BlobClient.from_blob_url(url) as client:
            client.upload_blob(_CONTENT)
            found = client.download_blob().readall()
        server.shutdown()
    if found != _CONTENT:
        raise RuntimeError("the blob client read back something else")


if __name__ == "__main__":
    main()
