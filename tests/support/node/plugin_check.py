"""A program for a node: MLflow and azureml-mlflow work with the packages that were added.

A runtime may keep a package that is newer than azureml-mlflow allows, so version limits say little:
the program calls the packages. The program needs no network.
"""

import os
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

_CONTENT = b"dbx-aml" * 1000
_WORKSPACE_URI = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    "00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/"
    "Microsoft.MachineLearningServices/workspaces/check"
)


def check_plugin() -> None:
    """Load the plugin, log a run and transfer a blob.

    Raises:
        Exception: The packages do not work together; the error may be of any of them.
    """
    # The check calls this node only. A no_proxy in small letters would override NO_PROXY.
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(
        # No client below may ask a host which Azure cloud this is.
        AZUREML_CURRENT_CLOUD="AzureCloud",
        # mlflow-skinny has no other store that works without a database.
        MLFLOW_ALLOW_FILE_STORE="true",
        MLFLOW_LOGGING_LEVEL="ERROR",
    )
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)
    _check_stores()
    with tempfile.TemporaryDirectory() as folder:
        _log_run(Path(folder))
    _transfer_blob()


def _check_stores() -> None:
    """Check that MLflow uses the stores of this package for Azure ML."""
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    stores: list[Any] = [
        tracking._get_store(_WORKSPACE_URI),
        registry._get_store(_WORKSPACE_URI, _WORKSPACE_URI),
    ]
    for store in stores:
        if not type(store).__module__.startswith("dbx_aml."):
            raise RuntimeError(f"MLflow uses {type(store).__module__} for azureml://")


def _log_run(folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=folder.as_uri(), registry_uri=folder.as_uri())
    run_id = client.create_run(client.create_experiment("check")).info.run_id
    client.log_metric(run_id, "metric", 12.5)
    client.log_param(run_id, "param", "value")
    client.set_terminated(run_id)
    run = client.get_run(run_id)
    if (run.data.metrics, run.data.params) != ({"metric": 12.5}, {"param": "value"}):
        raise RuntimeError(f"MLflow read back {run.data.metrics} and {run.data.params}")


class _BlobHandler(BaseHTTPRequestHandler):
    """A blob store for one upload and one download."""

    def do_PUT(self) -> None:
        """Store a blob."""
        self.server.content = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(201, b"")

    def do_GET(self) -> None:
        """Return the blob as the range that the client asks for."""
        self._respond(206, self.server.content)

    def _respond(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
        self.send_header("x-ms-blob-type", "BlockBlob")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""


def _transfer_blob() -> None:
    """Upload and download a blob with the two calls that azureml-mlflow's artifact client makes."""
    from azure.storage.blob import BlobClient

    with ThreadingHTTPServer(("127.0.0.1", 0), _BlobHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/account/container/blob"
        with BlobClient.from_blob_url(url) as client:
            client.upload_blob(_CONTENT)
            content = client.download_blob().readall()
        server.shutdown()
    if content != _CONTENT:
        raise RuntimeError("the blob client read back other bytes than it wrote")


if __name__ == "__main__":
    check_plugin()
