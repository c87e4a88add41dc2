"""A model behind Azure ML's own scoring server on this machine, before it is deployed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import (
    ArgumentError,
    ProgramError,
    ServiceUnavailableError,
    ServingError,
)
from dbx_aml._common.http import send
from dbx_aml._common.programs import run_program
from dbx_aml._common.retry import RetryPolicy
from dbx_aml.link.connected_link import current_link, use_link
from dbx_aml.local.built_environment import BuiltEnvironment, Report, build_environment
from dbx_aml.models.mlflow_client import create_client
from dbx_aml.models.model_uri import ModelUri
from dbx_aml.models.registries import (
    AML,
    find_registry,
    get_registered_version,
)
from dbx_aml.scoring.pinned_model import fetch_model
from dbx_aml.serving.environment import SCORE_SCRIPT, read_python_version, resolve_environment
from dbx_aml.serving.scoring_request import request_body
from dbx_aml.serving.server_log import find_reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model

    from dbx_aml.link.link import Link
    from dbx_aml.serving.scoring_request import Rows

START_TIMEOUT_S = 120.0
_PREDICT_SCRIPT = Path(__file__).with_name("predict_script.py")
_POLL_S = 0.05
_HEALTH_POLICY = RetryPolicy(timeout_s=1.0, max_attempts=1)
# Longest time that the scoring server gives a request.
_SCORE_POLICY = RetryPolicy(timeout_s=300.0, max_attempts=1)
_STOP_TIMEOUT_S = 1.0
_LOG_LINES = 25
# Variables that the container in Azure ML does not have from this machine: settings of the scoring
# server, of Python, and of the services that this program is connected with.
_DROPPED_VARIABLES = (
    *("AML_", "AZURE", "DATABRICKS_", "DBX_AML_", "GUNICORN_", "MLFLOW_", "PYTHON", "SPARK_"),
    *("VIRTUAL_ENV", "SERVER_", "WORKER_"),
)
# The server binds to every address of the machine by itself. It takes over a socket, as from
# systemd, that is bound to the loopback address; so no other program can take the port, either. It
# ends when this process ends, for then the pipe to its standard input is closed.
_LAUNCHER = """
import os, signal, sys, threading
from azureml_inference_server_http import amlserver

def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

os.dup2(int(sys.argv.pop(1)), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
threading.Thread(target=end_with_parent, daemon=True).start()
amlserver.run()
"""


class LocalEndpoint:
    """A running scoring server with one model.

    Args:
        model_uri: URI that no moving alias changes any more, for example "models:/delay/3".
        model_folder: Folder of the model's files, which the model may change.
        metadata: MLflow's description of the model.
        model_python: Version of Python that logged the model.
        environment: Environment that the server runs in.
        url: URL of scoring requests, for example "http://127.0.0.1:5001/score".
        process: Process of the server.
        log_file: File with the server's log.
    """

    def __init__(
        self,
        *,
        model_uri: str,
        model_folder: Path,
        metadata: Model,
        model_python: str,
        environment: BuiltEnvironment,
        url: str,
        process: subprocess.Popen[bytes],
        log_file: Path,
    ) -> None:
        self.model_uri = model_uri
        self.metadata = metadata
        self.model_python = model_python
        self.environment = environment
        self.url = url
        self.start_s = 0.0
        self._model_folder = model_folder
        self._process = process
        self._log_file = log_file
        self._last_log = ""

    @property
    def log(self) -> str:
        """Everything that server and model have printed."""
        with suppress(FileNotFoundError):
            self._last_log = self._log_file.read_text(encoding="utf-8", errors="replace")
        return self._last_log

    @property
    def input_example(self) -> Any:
        """Input example of the model; None if the model has none."""
        if self.metadata.saved_input_example_info is None:
            return None
        return self.metadata.load_input_example(str(self._model_folder))

    def score(self, rows: Rows) -> Any:
        """Return the predictions of the endpoint, a frame as a list of records.

        Args:
            rows: Frame or array; or the content of `input_data`; or a whole request with the key
                "input_data".

        Raises:
            ArgumentError: A value has no form in JSON.
            ServingError: The server refuses the request, or it does not answer. The message has
                the reason, which only the log of the server has.
        """
        body = request_body(rows)
        log_size = self._log_file.stat().st_size if self._log_file.exists() else 0
        try:
            response = send(
                "POST",
                self.url,
                _SCORE_POLICY,
                headers={"Content-Type": "application/json"},
                data=body,
                use_proxy=False,
            )
        except ServiceUnavailableError as err:
            raise self._error("scoring server must answer: got no answer", log_size) from err
        if response.status_code != 200:
            raise self._error(
                f"scoring server must answer with 200: got {response.status_code}", log_size
            )
        return response.json()

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Return what `pyfunc.predict` returns in the same environment, as JSON.

        Args:
            inputs: For each prediction a whole request, or None for the input example.

        Raises:
            ServingError: The model refuses an input.
        """
        with tempfile.TemporaryDirectory() as folder:
            answers_file = Path(folder) / "answers.json"
            command = [
                *(str(self.environment.interpreter), str(_PREDICT_SCRIPT)),
                *(str(self._model_folder), str(answers_file)),
            ]
            try:
                run_program(
                    command,
                    _SCORE_POLICY.timeout_s,
                    environment=_server_variables(self.environment),
                    input_text=json.dumps(list(inputs)),
                )
            except ProgramError as err:
                raise ServingError(
                    f"model must predict for its input: {find_reason(err.stderr) or err}; correct "
                    "the rows or the model",
                    log=_last_lines(err.stderr),
                ) from err
            answers: list[Any] = json.loads(answers_file.read_text(encoding="utf-8"))
        return answers

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server answers.

        Raises:
            ServingError: The server ends, or it does not answer in time.
        """
        start = time.monotonic()
        poll_until(lambda: self._is_ready() or not self._is_running(), timeout_s, _POLL_S)
        self.start_s = time.monotonic() - start
        if not self._is_running():
            raise self._error(
                f"scoring server must start: it ended with status {self._process.returncode}", 0
            )
        if not self._is_ready():
            raise self._error(
                f"scoring server must answer within {timeout_s:g} s: it does not; "
                "load less in the model's load_context, or give it more time",
                0,
            )

    def stop(self) -> None:
        """End the server and its workers."""
        # The web server ends at once, without waiting for requests.
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        # Workers are in the same process group.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self.log  # noqa: B018 - the file will be deleted

    def _is_running(self) -> bool:
        return self._process.poll() is None

    def _is_ready(self) -> bool:
        try:
            response = send("GET", self.url.removesuffix("score"), _HEALTH_POLICY, use_proxy=False)
        except ServiceUnavailableError:
            return False
        return response.status_code == 200

    def _error(self, message: str, log_size: int) -> ServingError:
        """Return an error with the reason in the log after its first bytes."""
        log = self.log.encode()[log_size:].decode(errors="replace")
        reason = find_reason(log)
        return ServingError(f"{message}; {reason}" if reason else message, log=_last_lines(log))


@contextmanager
def try_endpoint(
    model_uri: str,
    *,
    registry: str | None = None,
    link: Link | None = None,
    port: int | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    report: Report = lambda step: None,
) -> Iterator[LocalEndpoint]:
    """Serve a model on this machine in the scoring server and the environment of Azure ML.

    The server ends with the block. It listens on the loopback address only.

    Args:
        model_uri: Model, for example "models:/delay@champion", "runs:/4be1.../model" or a path.
        registry: Registry of the model: "databricks-uc", "databricks", "aml" or an MLflow URI. By
            default the registry of the link that has it.
        link: Link that has the registries; by default the connected one, else the one of variables
            and files.
        port: Port of the server; by default a free one.
        start_timeout_s: Longest time until the server answers.
        report: Function that is called with the name of each step.

    Yields:
        The endpoint: `url`, `score(frame)` and `log`.

    Raises:
        ArgumentError: The port is taken.
        ModelNotFoundError: There is no such model, version or alias.
        UnsolvableRequirementsError: The model's requirements contradict those of the server.
        PackagesError: The environment cannot be built.
        ServingError: The server does not start. The error has the last lines of its log.
        ProgramError: uv is not installed.
    """
    uri = ModelUri.parse(model_uri)
    with (
        _listen(port) as listener,
        tempfile.TemporaryDirectory(
            prefix="dbx_aml_endpoint_", ignore_cleanup_errors=True
        ) as temporary,
    ):
        root = Path(temporary)
        report("Downloading the model")
        with use_link(link) if link is not None else nullcontext():
            client = _find_client(uri, registry)
            location, model_folder, metadata = fetch_model(uri, client, root / "model")
        model_python = read_python_version(model_folder)
        report("Resolving the requirements")
        environment = build_environment(resolve_environment(model_folder), report)
        report("Starting the scoring server")
        # As in Azure ML: the server reads name and version from the path.
        version_folder = root / "models" / (uri.name or "model") / (location.uri.version or "1")
        served_folder = version_folder / "model"
        version_folder.mkdir(parents=True)
        if model_folder.is_relative_to(root):
            model_folder.rename(served_folder)
        else:  # MLflow has made no copy of a local folder
            shutil.copytree(model_folder, served_folder)
        process = _start_server(environment, version_folder, root, listener)
        endpoint = LocalEndpoint(
            model_uri=str(location.uri),
            model_folder=served_folder,
            metadata=metadata,
            model_python=model_python,
            environment=environment,
            url=f"http://127.0.0.1:{listener.getsockname()[1]}/score",
            process=process,
            log_file=_log_file(root),
        )
        listener.close()
        try:
            endpoint.wait_until_ready(start_timeout_s)
            yield endpoint
        finally:
            endpoint.stop()


def _find_client(uri: ModelUri, registry: str | None) -> MlflowClient:
    if uri.kind == "path":
        # A local folder needs no server. MLflow's default store would be created now.
        return create_client("http://127.0.0.1" if Path(str(uri)).is_dir() else None)
    link = current_link()
    if uri.kind not in ("alias", "version"):
        tracks_in_aml = link.mode == AML
        return find_registry(registry or (AML if tracks_in_aml else "databricks"), link).client
    return get_registered_version(uri, registry)[0].client


@contextmanager
def _listen(port: int | None) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port or 0))
        except OSError as err:
            raise ArgumentError(
                f"port must be free: got {port}: {err.strerror}; pass another one, or none"
            ) from err
        yield listener


def _start_server(
    environment: BuiltEnvironment, version_folder: Path, root: Path, listener: socket.socket
) -> subprocess.Popen[bytes]:
    # The server takes a config.json beside the script for its own settings.
    script = root / "app" / SCORE_SCRIPT.name
    script.parent.mkdir()
    shutil.copyfile(SCORE_SCRIPT, script)
    runtime_folder = root / "run"
    runtime_folder.mkdir(mode=0o700)
    port = str(listener.getsockname()[1])
    command = [
        *(str(environment.interpreter), "-c", _LAUNCHER, str(listener.fileno())),
        *("--entry_script", str(script), "--model_dir", str(version_folder)),
        *("--port", port, "--health_port", port),
    ]
    variables = {
        **_server_variables(environment),
        "AML_APP_ROOT": str(script.parent),
        "AZUREML_ENTRY_SCRIPT": str(script),
        "AZUREML_MODEL_DIR": str(version_folder),
        "MLFLOW_MODEL_FOLDER": "model",
        # For the control socket of the web server, which is else in the home folder.
        "XDG_RUNTIME_DIR": str(runtime_folder),
    }
    with _log_file(root).open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=script.parent,
            env=variables,
            pass_fds=(listener.fileno(),),
            # Ctrl-C in a terminal is for this process, which then ends the server.
            start_new_session=True,
        )


def _server_variables(environment: BuiltEnvironment) -> Mapping[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_DROPPED_VARIABLES)
    }
    path = f"{environment.interpreter.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _log_file(root: Path) -> Path:
    return root / "server.log"


def _last_lines(log: str) -> str:
    return "\n".join(log.rstrip().splitlines()[-_LOG_LINES:])
