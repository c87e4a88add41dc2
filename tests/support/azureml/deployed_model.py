"""A deployment that is really served: its environment, and Azure ML's inference server in it.

The environment of a conda file is made by uv once for each content of the file. A conda file that
cannot be solved fails as an image build does.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import urllib3
import yaml

from dbx_aml.local.jars import cache_folder
from tests.support.child_process import clean_environment, start_child

_START_TIMEOUT_S = 120.0
# What Azure ML's own image for MLflow models has beside the model's requirements.
_SERVER = ("azureml-inference-server-http", "azureml-ai-monitoring")
_LOGS_BYTES = 60_000


class ImageError(Exception):
    """The environment of a deployment cannot be built."""


class DeployedModel:
    """The process that serves a deployment.

    Args:
        folder: Folder for the files of the deployment and for its log.
        model_files: Bytes of the model's files by their paths below `name/version`.
        model_folder: Path of the MLmodel file below the model's root, for example "delay/3/model".
        code_files: Bytes of the scoring code's files by their paths.
        script: Scoring script in the code.
        conda_file: Text of the environment's conda file.
        variables: Environment variables of the deployment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model_files: dict[str, bytes],
        model_folder: str,
        code_files: dict[str, bytes],
        script: str,
        conda_file: str,
        variables: dict[str, str],
    ) -> None:
        self._folder = folder
        self._model_folder = model_folder
        self._script = script
        self._conda_file = conda_file
        self._variables = variables
        _write_files(folder / "models", model_files)
        _write_files(folder / "code", code_files)
        (folder / "app").mkdir(parents=True)
        self._log = folder / "server.log"
        self._log.touch()
        self._port = _free_port()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self._failure: tuple[str, str] | None = None
        self._is_ready = False
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", self._port, timeout=60, maxsize=16)
        Thread(target=self._start, daemon=True).start()

    def state(self) -> tuple[str, str] | bool | None:
        """Return False while it starts, None when it serves, else code and message."""
        return None if self._is_ready else (self._failure or False)

    @property
    def log(self) -> str:
        """The last part of the server's log."""
        return self._log.read_bytes()[-_LOGS_BYTES:].decode(errors="replace")

    def score(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of a scoring request."""
        answer = self._pool.request(
            "POST", "/score", body=body, headers={"Content-Type": "application/json"}
        )
        return answer.status, answer.data

    def stop(self) -> None:
        """End the process and remove the files."""
        self._is_stopped = True
        if self._child is not None:
            # The server and its worker processes are one session.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        try:
            python = build_environment(self._conda_file)
        except ImageError as error:
            self._failure = ("ImageBuildFailure", f"Image build failed: {error}")
            return
        except OSError as error:  # the stand-in itself
            self._failure = ("StandInFailed", repr(error))
            return
        if self._is_stopped:
            return
        code = self._folder / "code"
        self._child = start_child(
            [
                str(python.with_name("azmlinfsrv")),
                *("--entry_script", str(code / self._script)),
                *("--model_dir", str(self._folder / "models")),
                *("--port", str(self._port), "--health_port", str(_free_port())),
            ],
            self._log,
            environment=clean_environment()
            | {
                "AZUREML_MODEL_DIR": str(self._folder / "models"),
                "MLFLOW_MODEL_FOLDER": self._model_folder,
                "AML_APP_ROOT": str(self._folder / "app"),
                "AZUREML_ENTRY_SCRIPT": str(code / self._script),
                "PATH": f"{python.parent}:{os.environ['PATH']}",
                "no_proxy": "*",
            }
            | self._variables,
            folder=self._folder / "app",
        )
        self._wait()
        # The kernel kills a child with the thread that started it.
        self._child.wait()

    def _wait(self) -> None:
        assert self._child
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_stopped:
            text = self.log
            is_crashed = self._child.poll() is not None or "Worker failed to boot" in text
            if is_crashed or time.monotonic() > deadline:
                self._failure = (
                    "BadRequest",
                    "ResourceNotReady: User container has crashed or terminated. Please see "
                    "troubleshooting guide, available here: https://aka.ms/oe-tsg#error-"
                    "resourcenotready",
                )
                return
            try:
                if self._pool.request("GET", "/", retries=False).status == 200:
                    self._is_ready = True
                    return
            except urllib3.exceptions.HTTPError:
                time.sleep(0.2)


def build_environment(conda_file: str) -> Path:
    """Return the Python of the environment of a conda file, which is made if it is missing.

    Raises:
        ImageError: The file has no pip requirements, or they cannot be solved.
    """
    python_version, requirements = read_conda_file(conda_file)
    digest = hashlib.sha256(conda_file.encode()).hexdigest()[:20]
    target = cache_folder() / "azureml-images" / digest
    python = target / "bin" / "python"
    if (target / "done").exists():
        return python
    shutil.rmtree(target, ignore_errors=True)
    _uv("venv", "--quiet", "--python", python_version, str(target))
    _uv("pip", "install", "--quiet", "--python", str(python), *requirements)
    (target / "done").touch()
    return python


def read_conda_file(text: str) -> tuple[str, list[str]]:
    """Return Python's version and the pip requirements of a conda file."""
    content = yaml.safe_load(text) or {}
    python_version, requirements = "3.12", []
    for entry in content.get("dependencies") or []:
        if isinstance(entry, dict):
            requirements += entry.get("pip") or []
        elif str(entry).startswith("python="):
            python_version = ".".join(str(entry).strip("python=").split(".")[:2])
    if not requirements:
        raise ImageError("the conda file has no pip requirements")
    return python_version, requirements


def image_of_model(conda_file: str) -> str:
    """Return the conda file that Azure ML's image for models without code amounts to."""
    content = yaml.safe_load(conda_file)
    for entry in content["dependencies"]:
        if isinstance(entry, dict):
            entry["pip"] = [*entry["pip"], _SERVER[0]]
    return str(yaml.safe_dump(content))


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [str(uv), *arguments], capture_output=True, text=True, env=clean_environment(), check=False
    )
    if done.returncode:
        raise ImageError(done.stderr.strip()[-2000:])


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
