"""A Python with the packages of a runtime: as small stand-ins, or the real packages."""

import compileall
import ensurepip
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from dbx_aml.cluster.runtimes import Runtime
from dbx_aml.cluster.wheelhouse import _read_pins as read_pins
from tests.support.node.wheel import write_wheel

# The calls of MLflow and of the blob client that the init script's check makes.
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
# A runtime whose blob client is newer than the plugin allows, as in runtimes 18 and 19.
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
    """Return a virtual environment with pip and stand-ins of a runtime's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = site_packages(folder)
    wheels = folder.parent / "runtime-wheels"
    # Extracting the wheel that Python has takes a tenth of the time of installing it.
    pip_wheel = next(
        wheel
        # Debian's Python has its wheels elsewhere.
        for wheels_folder in (
            Path(ensurepip.__file__).parent / "_bundled",
            Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels"),
        )
        for wheel in wheels_folder.glob("pip-*.whl")
    )
    stand_ins = (
        write_wheel(wheels, name, version, (), _FILES.get(name))
        for name, version in STAND_INS.items()
    )
    for wheel in (pip_wheel, *stand_ins):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    # The init script needs packaging; every runtime has it, because mlflow-skinny requires it.
    packaging = distribution("packaging")
    for file in packaging.files or ():
        if file.suffix != ".pyc":
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(packaging.locate_file(file)), packages / file)
    compileall.compile_dir(packages, quiet=2)
    return folder


# Packages that the plugin, this package and the check import, without their dependencies.
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


def real_runtime(folder: Path, runtime: Runtime) -> Path:
    """Return a virtual environment with the packages of a runtime at the same versions.

    Packages that are imported are real. The others have only a name and a version, which is all
    that pip reads, and saves gigabytes.
    """
    subprocess.run([find_python(runtime.python), "-m", "venv", str(folder)], check=True)
    pins = folder.parent / "pins.txt"
    pins.write_text("".join(f"{name}=={pin}\n" for name, pin in runtime.packages.items()))
    resolve = ["compile", "-", "--constraint", str(pins), "--python", sys.executable]
    resolve += ["--python-version", runtime.python]
    real = read_pins(_run_uv(*resolve, stdin="\n".join(_REAL)))
    real = {name: pin for name, pin in real.items() if name in runtime.packages}
    python = str(folder / "bin" / "python")
    requirements = [f"{name}=={pin}" for name, pin in real.items()]
    # The packages of a runtime are compiled.
    _run_uv("install", "--compile-bytecode", "--python", python, "--no-deps", *requirements)
    packages = site_packages(folder)
    for name, pin in runtime.packages.items():
        if name not in real and name != "pip":
            with zipfile.ZipFile(write_wheel(folder.parent / "empty", name, pin)) as archive:
                archive.extractall(packages)
    return folder


def _run_uv(*arguments: str, stdin: str = "") -> str:
    command = [sys.executable, "-m", "uv", "pip", *arguments, "--quiet"]
    process = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def find_python(minor: str) -> str:
    """Return an interpreter of a minor version; the running interpreter if none is installed."""
    name = f"python{minor}"
    candidates = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{minor}.*/bin/{name}")]
    for python in filter(None, candidates):
        # A shim of pyenv fails unless its version is enabled.
        command = [str(python), "-c", "import ensurepip"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return str(python)
    return sys.executable


def write_plugin(folder: Path, version: str = PLUGIN, broken: str = "") -> Path:
    """Write a stand-in of azureml-mlflow with the requirements of the real package.

    Args:
        folder: Folder of the wheel.
        version: Version of the package.
        broken: Code that the import of its module runs instead of working.
    """
    text = broken or "def build(*uris): return None\n"
    files = {"azureml/mlflow/__init__.py": "", "azureml/mlflow/entry_point_loaders.py": text}
    return write_wheel(folder, "azureml-mlflow", version, _PLUGIN_REQUIRES, files, _ENTRY_POINTS)


def write_additions(folder: Path) -> list[Path]:
    """Write the dependencies of the plugin that the stand-in runtime lacks."""
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
    """Return the folder of a virtual environment's packages."""
    return next(environment.glob("lib/python3*/site-packages"))
