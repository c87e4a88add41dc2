"""The flow of a user on a node of each runtime: its packages, the init script, the built wheel.

`make runtimes` runs these tests. They leave the result of each runtime for docs/compatibility.md.
"""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dbx_aml.cluster.node.requirements import read_hashes
from dbx_aml.cluster.resolve import download_wheels
from dbx_aml.cluster.runtimes import Runtime
from tests.runtimes.compatibility import result_of
from tests.runtimes.environment import FOLDER, NAMES, make_environment, runtime_with_python
from tests.support.azureml import AzureMl
from tests.support.azureml.backend import Backend
from tests.support.child_process import clean_environment
from tests.support.mirror import databricks_environment
from tests.support.node.node import Node
from tests.support.node.wheel import list_wheels, wheelhouse_variables

pytestmark = [pytest.mark.runtime, pytest.mark.slow, pytest.mark.azureml]

ROOT = Path(__file__).parents[2]
FLOW = Path(__file__).with_name("flow.py")
EXPERIMENT_PATH = "/Users/ana@contoso.com/runtimes/größe"


@pytest.fixture(scope="module")
def mlflow_backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """The MLflow server in the place of Databricks; it starts while Azure ML's stand-in does."""
    return Backend(tmp_path_factory.mktemp("databricks"))


def fill_wheelhouse(runtime: Runtime) -> Path:
    """Return a folder with the wheels of the released list and the wheel of `make build`."""
    folder = FOLDER / runtime.name / "wheelhouse"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    assert len(wheels) == 1, "run 'make build'"
    shutil.copy(wheels[0], folder)
    download_wheels(read_hashes(runtime.requirements), runtime.python, folder)
    return list_wheels(folder, runtime.name)


def prepare_node(runtime: Runtime, variables: dict[str, str]) -> Node:
    """Return a new node with the runtime's packages, after a run of the init script."""
    environment = make_environment(runtime)
    root = FOLDER / runtime.name / "node"
    shutil.rmtree(root, ignore_errors=True)
    node = Node(root, environment, version=runtime.name)
    wheelhouse = wheelhouse_variables(fill_wheelhouse(runtime))
    result = node.run({**variables, **wheelhouse, "DBX_AML_ON_FAILURE": "stop"})
    assert result.last_line.startswith("done in"), result.lines
    return node


def run_flow(node: Node, folder: Path, services: dict[str, str]) -> dict[str, Any]:
    """Run the program as Databricks starts the processes of a node; return its result."""
    result_file = folder / "result.json"
    python = node.home / "python" / "bin" / "python"
    program = f'exec {python} -W ignore {FLOW} "{folder / "tables"}" "{result_file}"'
    done = subprocess.run(
        ["bash", "-c", f"source {node.spark_env}; {program}"],
        env={**clean_environment(), **services},
        cwd=folder, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_the_flow_runs_on_a_node_of_the_runtime(
    name: str,
    mlflow_backend: Backend,
    azureml: AzureMl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = runtime_with_python(name)
    (FOLDER / name / "result.json").unlink(missing_ok=True)
    link = {
        "DBX_AML_MODE": "dual",
        "DBX_AML_REGISTRY": "aml",
        "DBX_AML_AML_TRACKING_URI": azureml.tracking_uri,
    }
    node = prepare_node(runtime, link)
    mlflow_backend.wait()
    mlflow_backend.clear()
    services = {**azureml.environment(), **databricks_environment(mlflow_backend.port)}
    # The init script has set them.
    del services["MLFLOW_TRACKING_URI"], services["MLFLOW_REGISTRY_URI"]

    result = run_flow(node, tmp_path, services)

    for variable, text in azureml.environment().items():
        monkeypatch.setenv(variable, text)
    assert result["link"]["tracking_uri"] == "databricks"
    assert result["link"]["registry_uri"] == azureml.tracking_uri
    run_id = result["track"]["run_id"]
    source = MlflowClient(f"http://127.0.0.1:{mlflow_backend.port}")
    assert source.get_run(run_id).data.tags["dbx_aml.mirror"] == "done"
    # MLflow keeps one store for each URI, and the store keeps the experiments of the last runtime.
    aml = MlflowClient(f"{azureml.tracking_uri}?runtime={name}")
    assert_is_mirrored(aml, source, run_id)

    version = aml.get_model_version_by_alias("delay", "champion")
    assert (str(version.version), version.status, version.tags["team"]) == ("1", "READY", "größe")
    assert version.tags["dbx_aml.source_run_id"] == run_id

    score = result["score"]
    assert score["statuses"] == ["scored", "already_scored"]
    assert score["predictions"] == pytest.approx(
        {str(number): 10 * number / 4 + number % 7 for number in range(1, 400)}
    )
    ((quarantined_id, reason),) = score["quarantined"]
    assert (quarantined_id, "NaN" in reason) == (0, True), reason
    assert score["batches"] == 1
    is_whole = os.environ.get("TEST_RUNTIME_STEPS") != "score"
    if is_whole:
        assert (result["stream"]["rows"], result["stream"]["rows_in_table"]) == ([400, 0], 399)
        assert result["monitor"]["rows"] == 399
        assert {"x", "y"} <= set(result["monitor"]["columns"])
        assert result.get("page", {}).get("has_script") == ("plotly" in runtime.packages or None)

    run = aml.get_run(result["track in Azure ML"]["run_id"])
    assert run.data.params == {"alpha": "0.5", "long": "x" * 600}
    assert result["track in Azure ML"]["predictions"] == pytest.approx([0, 13, 24, 51])
    # The server in the place of Databricks is MLflow's own, which knows no users.
    assert result["doctor"]["failed"] == ["Databricks user"]
    packages = runtime.packages
    versions = result["versions"]
    for package in ("mlflow-skinny", "numpy", "pandas", "pyarrow"):
        assert versions[package] == packages[package]
    if name == "16.4":
        assert "which has no logged models" in result["logged model"]["error"]
    if is_whole:
        report = result_of(result, datetime.now(UTC).date().isoformat())
        (FOLDER / name / "result.json").write_text(json.dumps(report), encoding="utf-8")


def assert_is_mirrored(aml: MlflowClient, source: MlflowClient, run_id: str) -> None:
    """Assert that Azure ML has the values and the files of a run in Databricks."""
    experiment_name = next(
        experiment.name
        for experiment in aml.search_experiments()
        if experiment.name not in ("Default", "only-azure-ml")
    )
    assert experiment_name == EXPERIMENT_PATH
    experiment = aml.get_experiment_by_name(EXPERIMENT_PATH)
    # Monitoring has logged a run there, too.
    of_source = f"tags.`dbx_aml.source_run_id` = '{run_id}'"
    (mirrored,) = aml.search_runs([experiment.experiment_id], of_source)
    run = source.get_run(run_id)
    assert mirrored.data.metrics == run.data.metrics
    assert mirrored.data.metrics["größe"] == 12.5
    assert mirrored.data.params == run.data.params
    assert mirrored.data.params["fit_intercept"] == "True"
    notes = aml.list_artifacts(mirrored.info.run_id, "notes")
    assert [(info.path, info.file_size) for info in notes] == [("notes/a ü.txt", 5)]
