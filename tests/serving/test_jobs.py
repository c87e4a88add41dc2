"""Training scripts as jobs: run for real, followed line by line, canceled, submitted once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dbx_aml import Job, Link, submit_job
from dbx_aml._common.errors import (
    ArgumentError,
    CredentialError,
    ServiceError,
    ServingError,
    UnsolvableRequirementsError,
)
from dbx_aml.serving import jobs as jobs_module
from dbx_aml.serving.aml_resources import AmlResources
from dbx_aml.serving.job_environment import resolve_job_environment
from tests.serving.conftest import link_config, move_identity_to
from tests.support.azureml.service_process import AzureMl

pytestmark = pytest.mark.azureml

TRAIN = """
import argparse

import mlflow
import mlflow.pyfunc

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float, required=True)
alpha = parser.parse_args().alpha
with mlflow.start_run() as run:
    mlflow.log_param("alpha", alpha)
    mlflow.log_metric("loss", 1 / alpha)
    mlflow.pyfunc.log_model(
        name="model",
        python_model=lambda model_input: [alpha for _ in model_input],
        pip_requirements=["mlflow-skinny"],
        registered_model_name="constant",
    )
print(run.info.run_id)
"""
Submit = Callable[..., Job]


@pytest.fixture
def submit(
    resolved_job_environment: None,
    azureml_client: Any,
    link: Link,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Submit:
    """Return a function that submits a script from a new folder."""
    monkeypatch.setattr(jobs_module, "_POLL_S", 0.05)
    # Less than a log has: it is read in several requests.
    monkeypatch.setattr(jobs_module, "_READ_BYTES", 100)
    folder = tmp_path / "project"
    folder.mkdir()

    def submit_script(text: str = "print('done')\n", **options: Any) -> Job:
        script = folder / "train.py"
        script.write_text(text)
        return submit_job(script, **{"compute": "cpu-cluster", "link": link, **options})

    return submit_script


@pytest.mark.slow
def test_a_script_of_mlflow_3_runs_here_and_as_a_job_with_the_same_values(
    submit: Submit, azureml_client: Any, tmp_path: Path, link: Link
) -> None:
    import mlflow.pyfunc

    job = submit(TRAIN, parameters={"alpha": 0.5}, experiment="/Users/ana@contoso.com/iris")
    store = f"sqlite:///{tmp_path}/runs.db"
    subprocess.run(
        [sys.executable, str(tmp_path / "project" / "train.py"), "--alpha", "0.5"],
        env={**os.environ, "MLFLOW_TRACKING_URI": store},
        cwd=tmp_path,
        check=True,
    )
    assert job.wait().state == "Completed", job.log()
    # The run of the job is the MLflow run, in the experiment with the whole path.
    run = azureml_client.get_run(job.name)
    (local,) = mlflow.MlflowClient(store).search_runs(["0"])
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 2.0})
    assert (run.data.params, run.data.metrics) == (local.data.params, local.data.metrics)
    experiment = azureml_client.get_experiment(run.info.experiment_id)
    assert experiment.name == "/Users/ana@contoso.com/iris"
    assert mlflow.pyfunc.load_model("models:/constant/1").predict([1, 2]) == [0.5, 0.5]
    files = {
        file.relative_to(tmp_path / "out").as_posix() for file in job.download(tmp_path / "out")
    }
    assert {"user_logs/std_log.txt", "model/MLmodel"} <= files
    assert job.name in (tmp_path / "out/user_logs/std_log.txt").read_text()
    (listed,) = Job.load_all(link=link)
    assert (listed.name, listed.compute, listed.display_name) == (
        job.name,
        "cpu-cluster",
        "train.py",
    )
    assert listed.tags["dbx_aml.made_by"].startswith("dbx-aml ")


def test_a_caller_whom_the_link_alone_names_submits_and_downloads(
    submit: Submit, link: Link, azureml: AzureMl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azureml.job_fault("quota")
    own_link = move_identity_to(link, monkeypatch)
    job = submit(link=own_link, experiment="/Users/ana@contoso.com/iris")
    assert job.wait().state == "Failed"
    assert job.download(tmp_path / "out") == []
    # No later call of MLflow has this caller.
    with pytest.raises(CredentialError, match=r"Azure .* must give a token"):
        mlflow.search_experiments()


def test_a_job_runs_in_the_experiment_that_has_the_name_now(
    submit: Submit, azureml: AzureMl, azureml_client: Any
) -> None:
    azureml.job_fault("quota")
    first = submit(experiment="iris")
    experiment = azureml_client.get_experiment_by_name("iris")
    azureml_client.rename_experiment(experiment.experiment_id, "older")
    second, third = submit(experiment="iris"), submit(experiment="older")
    assert [job.experiment for job in (first, second, third)] == ["iris", "iris-2", "iris"]


@pytest.mark.slow
def test_the_log_comes_once_in_order_and_whole_while_it_grows(
    submit: Submit, azureml: AzureMl
) -> None:
    script = (
        "import sys, time\n"
        "for number in range(40):\n"
        "    text = f'{number} é\\r' if number % 2 else f'{number} \\u20ac\\n'\n"
        "    data = text.encode()\n"
        "    sys.stdout.buffer.write(data[:-2]); sys.stdout.buffer.flush(); time.sleep(0.02)\n"
        "    sys.stdout.buffer.write(data[-2:]); sys.stdout.buffer.flush()\n"
        "sys.stdout.write('the end')\n"
    )
    job = submit(script)
    parts: list[str] = []
    states: list[str] = []
    ended = job.follow(parts.append, states.append)
    assert ended.is_completed
    expected = "".join(f"{number} {'é' if number % 2 else '€'}\n" for number in range(40))
    text = "".join(parts)
    assert text[text.index("0 €") :] == f"{expected}the end"
    assert all(part.endswith("\n") for part in parts[:-1])
    assert len(parts) > 3, "the log must come in parts"
    assert states[-1] == "Completed"
    reads = azureml.requests(host="blob", path="std_log.txt")
    assert len(reads) > len(parts)


def test_a_value_that_begins_with_a_dash_is_the_value_of_its_option(
    submit: Submit, azureml: AzureMl
) -> None:
    azureml.job_fault("quota")
    job = submit("# --shift and --alpha\n", parameters={"shift": -1e-5, "alpha": 0.5})
    options = '--shift="${{inputs.shift}}" --alpha "${{inputs.alpha}}"'
    assert job.command.endswith(f"&& python train.py {options}")
    assert job.parameters == {"shift": "-1e-05", "alpha": "0.5"}


def test_the_end_of_a_line_that_comes_in_two_parts_is_one_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [b"abc\r", b"\n10 %\r20", b" %\r"]
    monkeypatch.setattr(jobs_module, "_read_blob", lambda url, start, cloud: parts.pop(0))
    reader = jobs_module._LogReader("AzureCloud")
    log_files = {"user_logs/std_log.txt": "https://blob"}
    texts = [reader.read_new(log_files, is_end=is_end) for is_end in (False, False, True)]
    assert texts == ["", "abc\n10 %\n", "20 %\n"]


@pytest.mark.slow
def test_cancel_ends_the_process_of_the_job(submit: Submit, tmp_path: Path) -> None:
    file = tmp_path / "process"
    job = submit(
        f"import os, time, pathlib\npathlib.Path({str(file)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    while not (file.exists() and file.read_text()):
        time.sleep(0.05)
    assert job.refresh().state == "Running"
    assert job.cancel().state == "Canceled"
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)
    assert job.cancel().state == "Canceled"


def test_a_job_that_is_deleted_while_its_log_is_followed_is_an_error(
    submit: Submit, azureml: AzureMl
) -> None:
    azureml.job_fault("quota")
    job = submit()
    job.wait()
    azureml.delete_data()
    with pytest.raises(ServingError, match=f"job must exist in workspace .* got '{job.name}'"):
        job.follow(print)


@pytest.mark.parametrize("fault", ["endless-preparing", "paused"])
def test_a_job_that_has_not_ended_is_canceled(submit: Submit, azureml: AzureMl, fault: str) -> None:
    azureml.job_fault(fault)
    job = submit()
    if fault == "paused":
        assert job.wait().state == "Paused"
    assert job.cancel().state == "Canceled"
    assert job.log() == ""


@pytest.mark.parametrize(
    ("fault", "state", "error"),
    [
        ("image-build", "Failed", "ImageBuildFailure: Image build failed."),
        ("quota", "Failed", "QuotaExceeded: The specified subscription has a total vCPU quota"),
        pytest.param(
            *("preempted", "Failed", "JobNodesLost: The node of the job was preempted."),
            marks=pytest.mark.slow,
        ),
        pytest.param("not-responding", "NotResponding", "", marks=pytest.mark.slow),
    ],
)
def test_the_end_of_a_job_and_its_reason_are_azures(
    submit: Submit, azureml: AzureMl, fault: str, state: str, error: str
) -> None:
    azureml.job_fault(fault)
    ended = submit("import time\nprint('started', flush=True)\ntime.sleep(600)\n").wait()
    assert (ended.state, ended.is_completed) == (state, False)
    assert ended.error().startswith(error)
    assert bool(ended.error()) == bool(error)


@pytest.mark.slow
def test_a_script_that_fails_is_a_failed_job_with_its_traceback_in_the_log(submit: Submit) -> None:
    ended = submit("raise SystemExit('no rows')\n").wait()
    assert ended.state == "Failed"
    assert "exited with status code 1" in ended.error()
    assert ended.log().rstrip().endswith("no rows")


def test_a_call_that_is_killed_after_the_upload_is_one_job_and_one_upload(
    submit: Submit, azureml: AzureMl, link: Link, tmp_path: Path
) -> None:
    azureml.job_fault("quota")
    azureml.fault("black-hole", path="/jobs/train-1", method="PUT", count=1)
    (tmp_path / "project" / "train.py").write_text("print('done')\n")
    config = link_config(link, tmp_path)
    process = azureml.start(
        "import sys, dbx_aml\n"
        "from dbx_aml import Link\n"
        "dbx_aml.submit_job(sys.argv[2], compute='cpu-cluster', name='train-1',\n"
        "                   link=Link.load(config=sys.argv[3]))\n",
        str(tmp_path / "project" / "train.py"),
        config,
    )
    try:
        azureml.wait_for(path="/jobs/train-1")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert Job.load_all(link=link) == []
    assert azureml.requests(host="blob")
    azureml.reset()
    azureml.job_fault("quota")
    first, again = submit(name="train-1"), submit(name="train-1")
    assert not azureml.requests(host="blob")
    assert first.name == again.name
    assert [job.name for job in Job.load_all(link=link)] == ["train-1"]
    with pytest.raises(ServingError, match=r"got 'train-1', which runs something else"):
        submit("print('other')\n", name="train-1")


def test_a_signed_url_that_ends_in_the_middle_of_an_upload_is_replaced(
    submit: Submit, azureml: AzureMl, tmp_path: Path
) -> None:
    azureml.job_fault("quota")
    for number in range(3):
        (tmp_path / "project" / f"{number}.csv").write_text(str(number))
    azureml.fault("status", host="blob", method="PUT", status=403, skip=2, count=3)
    submit()
    assert len(azureml.requests(path="startPendingUpload")) == 2
    paths = [entry.path for entry in azureml.requests(host="blob") if entry.method == "PUT"]
    files = [path.rpartition("/")[2].partition("?")[0] for path in paths]
    assert sorted(set(files))[:3] == ["0.csv", "1.csv", "2.csv"]
    assert len(paths) == len(set(files)) + 3
    azureml.reset()
    azureml.fault("status", host="blob", method="PUT", status=403)
    with pytest.raises(ServiceError, match=r"file '.*' must be uploaded: .*403"):
        submit("print('other')\n")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compute": "gone"}, ServingError, "compute must exist in workspace 'mlw-team'"),
        ({"compute": "ci-stopped"}, ServingError, "must run: got 'ci-stopped', which is 'Stopped'"),
        ({"compute": "ci-other"}, ServingError, "own: got 'ci-other', which belongs to 1f0e2d3c"),
        ({"parameters": {"beta": 1}}, ArgumentError, "script reads: got 'beta'"),
        ({"parameters": {"alpha": "$(id)"}}, ArgumentError, "'alpha' must have no quote"),
        ({"parameters": {"no name": 1}}, ArgumentError, "got 'no name'"),
        ({"parameters": {"api_key": "x1y2"}}, ArgumentError, "parameter must be no secret"),
        (
            {"environment_variables": {"DB": "https://me:pa55@db.contoso.com"}},
            ArgumentError,
            "environment variable must be no secret",
        ),
        ({"command": "echo hi", "parameters": {"alpha": 1}}, ArgumentError, "use each parameter"),
        ({"command": "echo ${{inputs.x}}"}, ArgumentError, "got none for 'x'"),
        ({"name": "a b"}, ArgumentError, "name of the job must be"),
        (
            {"environment": "training"},
            ArgumentError,
            "environment must be azureml:<name>:<version>",
        ),
        ({"environment": "azureml:gone:1"}, ServingError, "environment must exist in workspace"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_uploaded(
    submit: Submit, azureml: AzureMl, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace("$", r"\$").replace("(", r"\(")):
        submit("import argparse  # --alpha and --api-key\n", **options)
    assert not azureml.requests(path="/codes/")
    assert not [item for item in azureml.requests(path="/jobs/") if item.method == "PUT"]


@pytest.mark.parametrize(
    ("conda_file", "problem"),
    [
        ("dependencies: [python=3.10, pip: [mlflow, azureml-mlflow]]", "Python 3.10"),
        ("dependencies: [python=3.12, pip: [mlflow-skinny==3.1]]", "no azureml-mlflow"),
        ("dependencies: [python=3.12, pip: ]", "no azureml-mlflow"),
        ("dependencies: [python=3.12, pip: [azureml_mlflow>=1.60, mlflow]]", ""),
    ],
)
def test_an_environment_of_the_workspace_is_looked_at_first(
    submit: Submit, azureml: AzureMl, link: Link, conda_file: str, problem: str
) -> None:
    azureml.job_fault("quota")
    resources = AmlResources.of_link(link)
    version = {"properties": {"image": "python:3.12", "condaFile": conda_file}}
    resources.put("/environments/training/versions/1", version)
    if not problem:
        job = submit(environment="azureml:training:1")
        (path,) = [item for item in azureml.requests(path="/jobs/train") if item.method == "PUT"]
        assert path.path.endswith(job.name)
        return
    with pytest.raises(ServingError, match=f"got 'azureml:training:1' with {problem}"):
        submit(environment="azureml:training:1")


@pytest.mark.parametrize(
    ("curated", "problem", "warning"),
    [
        ("sklearn-1.5", "Python 3.10, and an MLflow whose log_model Azure ML answers with 404", ""),
        ("acpt-pytorch-1.13-cuda11.7", "with Python 3.8; leave the environment out", ""),
        ("tensorflow-2.16-cuda12", "", ""),
        ("rapids-24.10", "", "is a curated image whose packages Azure ML does not list"),
    ],
)
def test_the_python_of_a_curated_image_is_known_or_said_to_be_unknown(
    submit: Submit,
    azureml: AzureMl,
    link: Link,
    caplog: pytest.LogCaptureFixture,
    curated: str,
    problem: str,
    warning: str,
) -> None:
    azureml.job_fault("quota")
    image = f"mcr.microsoft.com/azureml/curated/{curated}:8"
    version = {"properties": {"image": image}}
    AmlResources.of_link(link).put(f"/environments/{curated}/versions/8", version)
    refused = pytest.raises(ServingError, match=problem) if problem else nullcontext()
    with refused:
        submit(environment=f"azureml:{curated}:8")
    assert warning in caplog.text
    assert bool(caplog.text) == bool(warning)


def test_requirements_that_contradict_this_package_are_told_by_uv_before_the_upload(
    submit: Submit, azureml: AzureMl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "requirements.txt").write_text("pandas>=3\n")
    with pytest.raises(UnsolvableRequirementsError, match=r"with those of dbx-aml on Python 3.12"):
        resolve_job_environment(tmp_path)


def test_a_script_outside_of_the_folder_and_an_mlproject_are_refused(
    submit: Submit, tmp_path: Path, link: Link
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(ArgumentError, match="script must be in the folder of the job"):
        submit(folder=elsewhere)
    with pytest.raises(ArgumentError, match="script must exist"):
        submit_job(elsewhere / "train.py", compute="cpu-cluster", link=link)
    (elsewhere / "MLproject").write_text(
        "entry_points:\n  main:\n    parameters:\n      alpha: {type: float, default: 0.5}\n"
        '    command: "python fit.py --alpha {alpha}"\n'
    )
    for path in (elsewhere, elsewhere / "MLproject"):
        with pytest.raises(ArgumentError, match=r"run: dbx-aml job submit fit.py -p alpha=0.5 "):
            submit_job(path, folder=elsewhere, compute="cpu-cluster", link=link)
