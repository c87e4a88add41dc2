"""What a runtime brings, in a Python of its own: as small stand-ins, or the real packages."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from dbx_aml.cluster.node.requirements import read_pins
from dbx_aml.cluster.runtimes import Runtime
from tests.support.node.wheel import write_wheel

# As much of MLflow and of the blob client as the init script's proof calls.
_MLFLOW = {
    "mlflow/__init__.py": """
from types import SimpleNamespace as _N
class MlflowClient:
    def __init__(self, **uris): self.data = _N(metrics={}, params={})
    def create_experiment(self, name): return "1"
    def create_run(self, experiment_id): return _N(info=_N(run_id="r"))
    def log_metric(self, run_id, name, value): self.data.metrics[name] = value
    def log_param(self, run_id, name, value): self.data.params[name] = value
    def set_terminated(self, run_id): pass
    def get_run(self, run_id): return _N(data=self.data)
""",
    "mlflow/tracking/__init__.py": "",
    "mlflow/tracking/_store.py": """
class Store: pass
Store.__module__ = "dbx_aml.store"
def _get_store(*uris): return Store()
""",
    "mlflow/tracking/_tracking_service/__init__.py": "",
    "mlflow/tracking/_tracking_service/utils.py": "from mlflow.tracking._store import _get_store",
    "mlflow/tracking/_model_registry/__init__.py": "",
    "mlflow/tracking/_model_registry/utils.py": "from mlflow.tracking._store import _get_store",
}
_BLOB = {
    "azure/storage/blob/__init__.py": """
from types import SimpleNamespace as _N
class BlobClient:
    from_blob_url = classmethod(lambda cls, url: cls())
    __enter__ = lambda self: self
    __exit__ = lambda self, *_: None
    def upload_blob(self, content): self.content = content
    def download_blob(self): return _N(readall=lambda: self.content)
""",
}
# Of a runtime whose blob client is newer than the plugin allows, as 18 and 19 are.
STAND_INS: Mapping[str, str] = {
    "mlflow-skinny": "3.8.1",
    "azure-storage-blob": "12.28.0",
    "azure-identity": "1.20.0",
    "azure-core": "1.37.0",
    "pandas": "2.2.3",
    "click": "8.1.8",
    "rich": "13.9.4",
}
_FILES = {"mlflow-skinny": _MLFLOW, "azure-storage-blob": _BLOB}
PLUGIN = "1.62.0.post6"
_PLUGIN_REQUIRES = (
    "mlflow-skinny<=3.15.0",
    "azure-storage-blob<=12.27.1,>=12.5.0",
    "azure-core!=1.22.0,<2.0.0,>=1.8.0",
    "jsonpickle<5.0.0",
    "msrest>=0.6.18",
    'numpy; extra == "deployments"',
)
_ENTRY_POINTS = """
[mlflow.tracking_store]
azureml = azureml.mlflow.entry_point_loaders:build
[mlflow.model_registry_store]
azureml = azureml.mlflow.entry_point_loaders:build
[mlflow.artifact_repository]
azureml = azureml.mlflow.entry_point_loaders:build
"""


def stand_in_runtime(folder: Path) -> Path:
    """Return a virtual environment with stand-ins of a runtime's packages."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    place = site_packages(folder)
    wheels = folder.parent / "runtime-wheels"
    for name, version in STAND_INS.items():
        with zipfile.ZipFile(write_wheel(wheels, name, version, (), _FILES.get(name))) as archive:
            archive.extractall(place)
    # Every runtime has it, mlflow-skinny needs it.
    packaging = distribution("packaging")
    for file in packaging.files or ():
        if file.suffix != ".pyc":
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(packaging.locate_file(file)), place / file)
    return folder


# With what they need in turn: what the plugin, this package and the proof import.
_REAL = (
    "azure-common",
    "azure-identity",
    "azure-mgmt-core",
    "azure-storage-blob",
    "click",
    "mlflow-skinny",
    "msrest",
    "packaging",
    "pandas",
    "requests-oauthlib",
    "rich",
)


def real_runtime(folder: Path, machine: Runtime) -> Path:
    """Return a virtual environment with what a runtime brings, at the same versions.

    What is imported is real; the rest has only its name and version, which is
    all that an installer looks at, and spares gigabytes.
    """
    python = _python(machine.python)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    pins = folder.parent / "pins.txt"
    pins.write_text("".join(f"{name}=={pin}\n" for name, pin in machine.packages.items()))
    resolve = ["compile", "-", "--constraint", str(pins), "--python", sys.executable]
    resolve += ["--python-version", machine.python]
    real = read_pins(_uv(*resolve, text="\n".join(_REAL)))
    real = {name: pin for name, pin in real.items() if name in machine.packages}
    names = [f"{name}=={pin}" for name, pin in real.items()]
    # As a runtime is: its packages are compiled.
    _uv(
        "install",
        "--compile-bytecode",
        "--python",
        str(folder / "bin" / "python"),
        "--no-deps",
        *names,
    )
    place = site_packages(folder)
    for name, pin in machine.packages.items():
        if name not in real and name != "pip":
            with zipfile.ZipFile(write_wheel(folder.parent / "empty", name, pin)) as archive:
                archive.extractall(place)
    return folder


def _uv(*words: str, text: str = "") -> str:
    command = [sys.executable, "-m", "uv", "pip", *words, "--quiet"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _python(minor: str) -> str:
    """Return an interpreter of this version where there is one, else the one that runs this."""
    name = f"python{minor}"
    candidates = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{minor}.*/bin/{name}")]
    for found in candidates:
        # A shim answers only where its version is switched on.
        if (
            found
            and not subprocess.run(
                [str(found), "-c", "import ensurepip"], capture_output=True, check=False
            ).returncode
        ):
            return str(found)
    return sys.executable


def write_plugin(folder: Path, version: str = PLUGIN, broken: str = "") -> Path:
    """Return a stand-in of azureml-mlflow with the real one's requirements.

    Args:
        folder: Where to write it.
        version: For example that of 2021.
        broken: What its module does when it is imported, instead of working.
    """
    text = broken or "def build(*uris): return None\n"
    files = {"azureml/mlflow/__init__.py": "", "azureml/mlflow/entry_point_loaders.py": text}
    return write_wheel(folder, "azureml-mlflow", version, _PLUGIN_REQUIRES, files, _ENTRY_POINTS)


def write_additions(folder: Path) -> list[Path]:
    """Write what the plugin needs and the stand-in runtime lacks."""
    return [
        write_wheel(folder, "jsonpickle", "4.1.4", (), {"jsonpickle.py": ""}),
        write_wheel(
            folder,
            "msrest",
            "0.7.1",
            ("requests-oauthlib>=0.5.0", "azure-core>=1.24.0"),
            {f"msrest/part{number}.py": "x = 1\n" * 50 for number in range(20)},
        ),
        write_wheel(folder, "requests-oauthlib", "2.0.0", (), {"requests_oauthlib.py": ""}),
    ]


def site_packages(environment: Path) -> Path:
    """Return where a virtual environment's packages are."""
    return next(environment.glob("lib/python3*/site-packages"))
