"""The bundle: by its text, by the classes of its resources, and by the real CLI."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from databricks.bundles.experiments import MlflowExperiment
from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

import dbx_aml
from dbx_aml._common.errors import MonitoringError
from dbx_aml.cli.main import main
from dbx_aml.cluster.runtimes import find_runtime
from dbx_aml.local.notebook.source import read_notebook
from dbx_aml.local.spark import SHORT_JOB_JAVA_OPTIONS
from tests.support.databricks import USER, Databricks, databricks_service
from tests.support.databricks.wheel_task import WheelTasks
from tests.support.models import XY, choosy_sum, save_model
from tests.support.node.wheel import list_wheels, write_wheel
from tests.support.notebook import widget_names

ROOT = Path(__file__).parents[1]
NOTEBOOK_START = b"# Databricks notebook source"
BUNDLE = ROOT / "databricks.yml"
RESOURCES = sorted((ROOT / "resources").glob("*.yml"))
TARGETS, COMPUTES = ("dev", "prod"), ("serverless", "cluster")
PRINCIPAL = "5e3b0000-0000-4000-8000-000000000001"
# The same as the extra [test] without the local engine.
TEST_PACKAGES = ["pytest>=8", "chispa>=0.12,<0.13"]
CLI = shutil.which("databricks")
INIT_FOLDER = "/Volumes/main/dbx_aml/files/init"

each_target_and_compute = pytest.mark.parametrize(
    ("target", "compute"), [(target, compute) for target in TARGETS for compute in COMPUTES]
)


# Offline: the text of the files, with the variables resolved by this module.


def load(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def variable_values(target: str, compute: str) -> dict[str, Any]:
    """Return the unresolved values of the variables for a target and a compute."""
    bundle = load(BUNDLE)
    defaults = {name: variable.get("default") for name, variable in bundle["variables"].items()}
    arguments = {"compute": f"${{var.{compute}}}", "service_principal": PRINCIPAL}
    return defaults | bundle["targets"][target].get("variables", {}) | arguments


def resolve(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return a value with its ${var.a.b} replaced; other references stay."""
    if isinstance(value, dict):
        return {name: resolve(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def variable_value(path: str) -> Any:
        variable: Any = variables
        for name in path.split("."):
            if isinstance(variable, str):
                variable = resolve(variable, variables)
            variable = variable[name]
        return resolve(variable, variables)

    if reference := re.fullmatch(r"\$\{var\.([\w.]+)\}", value):
        return variable_value(reference[1])
    return re.sub(r"\$\{var\.([\w.]+)\}", lambda match: str(variable_value(match[1])), value)


def resources(target: str = "dev", compute: str = "serverless") -> dict[str, dict[str, Any]]:
    unresolved: dict[str, dict[str, Any]] = {}
    for file in RESOURCES:
        unresolved |= load(file)["resources"]
    resolved: dict[str, dict[str, Any]] = resolve(unresolved, variable_values(target, compute))
    return resolved


def job(name: str, target: str = "dev", compute: str = "serverless") -> dict[str, Any]:
    settings: dict[str, Any] = resources(target, compute)["jobs"][name]
    return settings


def options(*names: str) -> set[str]:
    """Return the options of a command that take a value, as job parameters are named."""
    command: Any = main
    for name in names:
        command = command.commands[name]
    return {option.name or "" for option in command.params if not getattr(option, "is_flag", False)}


@each_target_and_compute
def test_the_platforms_classes_accept_each_resource(target: str, compute: str) -> None:
    bundle = resources(target, compute)

    assert set(bundle) == {"jobs", "schemas", "volumes", "experiments"}
    score_jobs = {"score", "score_on_update", "score_stream"}
    assert set(bundle["jobs"]) == {*score_jobs, "mirror", "test", "train", "deploy_endpoint"}
    for kind, resource_class in (
        ("jobs", Job),
        ("schemas", Schema),
        ("volumes", Volume),
        ("experiments", MlflowExperiment),
    ):
        for settings in bundle[kind].values():
            resource_class.from_dict(settings)


def test_the_platforms_classes_refuse_a_misspelt_field() -> None:
    with pytest.raises(ValueError, match="retries"):
        Job.from_dict(job("score") | {"retries": 1})


@each_target_and_compute
def test_each_task_runs_on_the_compute_of_its_job_and_finds_the_wheel(
    target: str, compute: str
) -> None:
    for name in resources()["jobs"]:
        settings = job(name, target, compute)
        clusters = {cluster["job_cluster_key"] for cluster in settings["job_clusters"]}
        environments = {
            environment["environment_key"]: environment["spec"]["dependencies"]
            for environment in settings["environments"]
        }
        assert bool(clusters) == (compute == "cluster")
        assert bool(environments) == (compute == "serverless")
        for task in settings["tasks"]:
            if compute == "cluster":
                assert task["job_cluster_key"] in clusters
                assert task["libraries"][0] == {"whl": "./dist/*.whl"}
                packages = [library["pypi"]["package"] for library in task["libraries"][1:]]
                own_packages = {"deploy": ["uv>=0.5"], "test": TEST_PACKAGES}
                assert packages == own_packages.get(task["task_key"], [])
            else:
                packages = TEST_PACKAGES if name == "test" else ["uv>=0.5"]
                assert environments[task["environment_key"]] == ["./dist/*.whl", *packages]


def test_both_computes_run_the_same_tasks() -> None:
    compute_keys = {"environment_key", "job_cluster_key", "libraries"}
    for name in resources()["jobs"]:
        serverless_tasks, cluster_tasks = (
            [
                {key: value for key, value in task.items() if key not in compute_keys}
                for task in job(name, compute=compute)["tasks"]
            ]
            for compute in COMPUTES
        )
        assert serverless_tasks == cluster_tasks


@pytest.mark.parametrize("name", ["score", "score_on_update", "score_stream"])
def test_a_score_job_has_the_commands_options_as_parameters_and_passes_each(name: str) -> None:
    settings = job(name)
    parameters = [parameter["name"] for parameter in settings["parameters"]]
    task = settings["tasks"][0]
    command, *arguments = task["python_wheel_task"]["parameters"]

    assert command == "score"
    assert set(parameters) == options("score")
    assert sorted(arguments) == sorted(
        f"--{parameter.replace('_', '-')}={{{{job.parameters.{parameter}}}}}"
        for parameter in parameters
    )


@pytest.mark.parametrize("compute", ["serverless", "cluster"])
@pytest.mark.parametrize("name", ["score", "score_on_update"])
def test_a_score_job_monitors_its_output_table_afterwards_where_a_variable_says_so(
    name: str, compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = job(name, compute=compute)
    score, monitor = settings["tasks"]
    command, table, *arguments = monitor["python_wheel_task"]["parameters"]

    assert (command, table) == ("monitor", "{{job.parameters.output_table}}")
    assert {argument.partition("=")[0] for argument in arguments} <= {
        *("--baseline", "--threshold", "--page")
    }
    assert monitor["depends_on"] == [{"task_key": score["task_key"]}]
    assert monitor["disabled"] is True
    assert "max_retries" not in monitor
    assert "on_failure" in settings["email_notifications"]
    assert arguments_of_monitor(monkeypatch, table, *arguments) == {
        "output_table": table,
        "baseline": None,
        "thresholds": {"psi": 0.2},
        "page": "/Volumes/main/${resources.schemas.ml.name}/"
        "${resources.volumes.files.name}/drift.html",
    }


def arguments_of_monitor(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Return what the command passes to `monitor_table`, without its defaults."""
    passed: dict[str, Any] = {}

    def end(**values: Any) -> None:
        passed.update(values)
        raise MonitoringError("no tables here")

    monkeypatch.setattr("dbx_aml.monitoring.monitor_table.monitor_table", end)
    CliRunner().invoke(main, ["monitor", *arguments])
    return {name: passed[name] for name in ("output_table", "baseline", "thresholds", "page")}


def test_the_mirror_job_passes_its_parameters_as_options() -> None:
    settings = job("mirror")
    (task,) = settings["tasks"]

    assert {parameter["name"] for parameter in settings["parameters"]} <= options("mirror")
    assert task["python_wheel_task"]["parameters"] == [
        "mirror", "--config={{job.parameters.config}}"
    ]  # fmt: skip
    assert settings["schedule"]["quartz_cron_expression"].split()[1] == "0/15"


@pytest.mark.parametrize("compute", ["serverless", "cluster"])
def test_the_deploy_job_passes_the_endpoint_and_each_parameter_as_an_option(compute: str) -> None:
    settings = job("deploy_endpoint", compute=compute)
    parameters = [parameter["name"] for parameter in settings["parameters"]]
    (task,) = settings["tasks"]
    assert set(parameters) - {"endpoint"} <= options("endpoint", "deploy")
    assert task["python_wheel_task"]["parameters"] == [
        *("endpoint", "deploy", "{{job.parameters.endpoint}}"),
        *(
            f"--{name.replace('_', '-')}={{{{job.parameters.{name}}}}}"
            for name in parameters
            if name != "endpoint"
        ),
    ]


def path_of(name: str) -> Path:
    """Return the path of a file of the checkout; a file of the package is the installed one."""
    root = Path(dbx_aml.__file__).parents[1] if name.startswith("dbx_aml/") else ROOT
    return root / name


def test_parameters_of_training_are_widgets_of_its_notebooks() -> None:
    settings = job("train")
    widgets: dict[str, set[str]] = {}
    for task in settings["tasks"]:
        notebook = ROOT / task["notebook_task"]["notebook_path"]
        widgets[task["task_key"]] = widget_names(read_notebook(notebook))
        assert set(task["notebook_task"].get("base_parameters", {})) <= widgets[task["task_key"]]

    assert list(widgets) == ["track", "register"]
    names = {parameter["name"] for parameter in settings["parameters"]}
    # The first task passes the URI of its model to the second task.
    assert names == (widgets["track"] | widgets["register"]) - {"model_uri"}
    assert 'taskValues.set("model_uri"' in (ROOT / "notebooks/02_track.py").read_text()


def test_the_test_job_runs_the_example_tests_with_the_packages_of_the_extra() -> None:
    settings = job("test")
    (task,) = settings["tasks"]
    notebook = path_of(task["notebook_task"]["notebook_path"])

    (parameter,) = settings["parameters"]
    assert widget_names(read_notebook(notebook)) == {parameter["name"]}
    assert (notebook.parent / parameter["default"]).is_file()
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{package}",' in setup for package in TEST_PACKAGES)


def test_the_entry_point_is_the_command_and_its_package_can_be_imported() -> None:
    for name in ("score", "score_on_update", "score_stream", "mirror"):
        for task in job(name)["tasks"]:
            wheel_task = task["python_wheel_task"]
            # The name of the distribution and of the package: the platform may look for either.
            assert wheel_task["package_name"] == dbx_aml.__name__
            assert (
                f'"{wheel_task["entry_point"]}=dbx_aml.cli.main:main"'
                in (ROOT / "setup.py").read_text()
            )


def test_a_command_that_ends_well_returns_and_one_that_does_not_exits() -> None:
    """A wheel task takes any SystemExit for a failure."""
    assert main(["score", "--help"]) is None
    with pytest.raises(SystemExit, match="2"):
        main(["score", "--no-such-option"])


def test_all_paths_exist() -> None:
    bundle = load(BUNDLE)
    for path in bundle["sync"]["paths"]:
        assert path_of(path).is_dir()
    files = "${workspace.file_path}/"
    file = bundle["variables"]["config"]["default"]
    assert file.startswith(files)
    path = ROOT / file.removeprefix(files)
    assert path.is_file()
    assert str(path.parent.relative_to(ROOT)) in bundle["sync"]["paths"]


def test_every_variable_is_described_and_used() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in (BUNDLE, *RESOURCES))
    variables = load(BUNDLE)["variables"]

    assert {"catalog", "schema", "volume", "group", "compute"} <= set(variables)
    for name, variable in variables.items():
        assert variable["description"], name
        used = name in COMPUTES or f"${{var.{name}}}" in text or f"${{var.{name}." in text
        assert used, name


def test_runtime_and_serverless_version_are_known_and_bring_the_same() -> None:
    variables = load(BUNDLE)["variables"]
    cluster = find_runtime(variables["spark_version"]["default"])
    serverless = find_runtime(f"client.{variables['serverless_version']['default']}")

    assert cluster and serverless
    assert cluster.refusal is serverless.refusal is None
    assert cluster.is_lts
    assert cluster.python == serverless.python
    for name in ("pandas", "pyarrow", "numpy", "azure-storage-blob"):
        assert cluster.packages[name] == serverless.packages[name]
    # azureml-mlflow as a library would replace a newer version of the runtime.
    assert tuple(map(int, cluster.packages["azure-storage-blob"].split("."))) <= (12, 27, 1)
    setup = (ROOT / "setup.py").read_text()
    assert f'"Programming Language :: Python :: {cluster.python}"' in setup
    spark = re.search(r"pyspark\[connect\]==(\d+)\.", setup)
    assert spark and cluster.spark and cluster.spark.startswith(f"{spark[1]}.")


def test_schedules_run_in_production_only_and_one_run_at_a_time() -> None:
    bundle = load(BUNDLE)
    assert bundle["targets"]["dev"]["mode"] == "development"
    assert bundle["targets"]["dev"]["default"] is True
    assert bundle["targets"]["dev"]["presets"]["jobs_max_concurrent_runs"] == 1
    assert bundle["targets"]["prod"]["mode"] == "production"
    assert PRINCIPAL not in BUNDLE.read_text()
    assert "${workspace.current_user" not in bundle["targets"]["prod"]["workspace"]["root_path"]
    for name, settings in resources("prod")["jobs"].items():
        assert settings["max_concurrent_runs"] == 1, name
        if "continuous" in settings:
            continue
        assert settings["queue"] == {"enabled": True}
        assert settings["timeout_seconds"] > 0
        assert settings["health"]["rules"][0]["value"] < settings["timeout_seconds"]
        trigger = settings.get("schedule") or settings.get("trigger") or {"pause_status": "PAUSED"}
        assert trigger["pause_status"] == ("UNPAUSED" if name == "score" else "PAUSED")
    assert job("score", "dev")["schedule"]["pause_status"] == "PAUSED"
    task, _ = job("score")["tasks"]
    assert (task["max_retries"], task["timeout_seconds"]) == (2, 7200)


@each_target_and_compute
def test_the_continuous_job_streams_where_the_compute_can_and_the_platform_repeats_its_runs(
    target: str, compute: str
) -> None:
    settings = job("score_stream", target, compute)
    defaults = {entry["name"]: entry["default"] for entry in settings["parameters"]}
    others = {entry["name"]: entry["default"] for entry in job("score")["parameters"]}
    assert settings["continuous"] == {"pause_status": "PAUSED"}
    assert defaults == others | {
        "trigger": "available-now" if compute == "serverless" else "1 minute"
    }
    (task,) = settings["tasks"]
    # The platform refuses a continuous job with any of these.
    refused = {"max_retries", "min_retry_interval_millis", "depends_on", "timeout_seconds"}
    assert not refused & {*task, *settings}


@pytest.mark.parametrize("target", TARGETS)
def test_grants_name_a_principal_of_the_account_and_permissions_a_group_of_the_workspace(
    target: str,
) -> None:
    bundle = resources(target)
    grants = [*bundle["schemas"]["ml"]["grants"], *bundle["volumes"]["files"]["grants"]]
    assert [grant["principal"] for grant in grants] == ["account users"] * 2
    permissions = resolve(
        load(BUNDLE)["targets"][target]["permissions"], variable_values(target, "serverless")
    )
    assert [entry["group_name"] for entry in permissions if "group_name" in entry] == ["users"]


@pytest.mark.parametrize("target", TARGETS)
def test_no_setting_takes_the_user_name_of_the_deploying_identity_for_a_person(
    target: str,
) -> None:
    """The user name of a service principal is its application ID, which gets no mail."""
    for settings in resources(target)["jobs"].values():
        assert settings["email_notifications"] == {
            "on_failure": [], "on_duration_warning_threshold_exceeded": []
        }  # fmt: skip
    assert "current_user.userName" not in BUNDLE.read_text()
    assert "user_name:" not in BUNDLE.read_text()


# With the Databricks CLI, against the stand-in of a workspace.


@dataclass(frozen=True, kw_only=True)
class Deployer:
    """The Databricks CLI in a copy of the bundle, signed in to a workspace."""

    folder: Path
    databricks: Databricks
    target: str
    compute: str
    extra_variables: tuple[str, ...] = ()

    def __call__(self, *arguments: str) -> str:
        variables = [f"compute=${{var.{self.compute}}}", *self.extra_variables]
        if self.target == "prod":
            variables.append(f"service_principal={PRINCIPAL}")
        process = subprocess.run(
            [str(CLI), "bundle", *arguments, "--target", self.target,
             *(part for variable in variables for part in ("--var", variable))],
            cwd=self.folder, capture_output=True, text=True, check=False,
            env={**os.environ, **self.databricks.environment(), "HOME": str(self.folder.parent),
                 "DATABRICKS_CACHE_ENABLED": "false"},
        )  # fmt: skip
        output = process.stdout + process.stderr
        assert process.returncode == 0, output
        return output


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of the bundle, with the environment of the tests as its .venv."""
    if not CLI:
        pytest.skip("needs the Databricks CLI (databricks) on the PATH")
    if not (ROOT / "dbx_aml").is_dir():
        pytest.skip("needs the sources of the package: the bundle builds its wheel")
    folder = tmp_path_factory.mktemp("bundle") / "dbx-aml"
    folder.mkdir()
    for name in ("dbx_aml", "init_scripts", "notebooks", "resources"):
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=hidden)
    for name in ("databricks.yml", "setup.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture
def deploying_user() -> str:
    """The user name of the CLI; for a service principal, its application ID."""
    return USER


@pytest.fixture
def deployer(
    checkout: Path, tmp_path: Path, deploying_user: str
) -> Iterator[Callable[..., Deployer]]:
    """Make a `Deployer` for a target and a compute, with an empty workspace."""
    shutil.rmtree(checkout / ".databricks", ignore_errors=True)
    with databricks_service(tmp_path / "drivers", deploying_user) as databricks:

        def make_deployer(target: str, compute: str, *extra_variables: str) -> Deployer:
            return Deployer(
                folder=checkout,
                databricks=databricks,
                target=target,
                compute=compute,
                extra_variables=extra_variables,
            )

        yield make_deployer


def test_the_files_fit_the_schema_of_the_cli(checkout: Path) -> None:
    import jsonschema

    process = subprocess.run([str(CLI), "bundle", "schema"], capture_output=True, check=True)
    # Regular expressions of Python lack \p{...}.
    text = (
        process.stdout.decode().replace(r"[\\p{L}\\p{N}]", r"\\w").replace(r"\\p{L}", r"[^\\W\\d_]")
    )
    schema = jsonschema.Draft202012Validator(json.loads(text))
    for file in (BUNDLE, *RESOURCES):
        assert list(schema.iter_errors(load(file))) == [], file
    (jobs,) = (load(file) for file in RESOURCES if file.name == "jobs.yml")
    jobs["resources"]["jobs"]["score"]["retries"] = {}
    assert list(schema.iter_errors(jobs))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "compute"), [("dev", "serverless"), ("prod", "cluster")])
def test_the_cli_deploys_the_repository_and_removes_all_of_it(
    deployer: Callable[..., Deployer], target: str, compute: str
) -> None:
    cli = deployer(target, compute)
    workspace = cli.databricks
    before = set(workspace.files.items)
    # Permissions that a user of a shared workspace lacks.
    workspace.deny("POST .*/(catalogs|policies/clusters/create|clusters/create|warehouses)")

    check_validation(cli)
    assert "20 to add, 0 to change, 0 to delete" in cli("plan")
    assert "20 created, 0 changed, 0 deleted" in cli("deploy")
    if compute == "cluster":
        upload_init_script(cli)

    jobs = {job["settings"]["name"]: job["settings"] for job in workspace.jobs.jobs.values()}
    prefix = "[dev ana] " if target == "dev" else ""
    names = ("score", "score-on-update", "score-stream", "test", "mirror", "train")
    assert set(jobs) == {f"{prefix}dbx-aml-{name}" for name in (*names, "deploy-endpoint")}
    score = jobs[f"{prefix}dbx-aml-score"]
    assert score["schedule"]["pause_status"] == ("PAUSED" if target == "dev" else "UNPAUSED")
    assert score["max_concurrent_runs"] == 1
    schema = "main.dev_ana_dbx_aml" if target == "dev" else "main.dbx_aml"
    assert list(workspace.catalogs.schemas) == [schema]
    assert workspace.volumes.names == [f"{schema}.files"]
    defaults = {parameter["name"]: parameter["default"] for parameter in score["parameters"]}
    assert defaults["model_uri"] == f"models:/{schema}.arrival_delay@champion"
    assert defaults["input_table"] == f"{schema}.flights"
    assert defaults["checkpoint_location"].startswith(f"/Volumes/{schema.replace('.', '/')}/files/")

    home = USER if target == "dev" else PRINCIPAL
    root = f"/Users/{home}/.bundle/dbx-aml/{target}"
    check_files(cli, root)
    check_compute(cli, score, root)
    for task in jobs[f"{prefix}dbx-aml-train"]["tasks"]:
        notebook = task["notebook_task"]["notebook_path"].removeprefix("/Workspace")
        assert workspace.files.items[notebook].kind == "NOTEBOOK"

    output = cli("deploy")
    # Each build has a new version, which the jobs name.
    assert "0 created, 7 changed, 0 deleted" in output
    assert f"{prefix}dbx-aml-score" in cli("summary")
    assert "TERMINATED SUCCESS" in cli("run", "train")
    cli("destroy", "--auto-approve")
    assert workspace.jobs.jobs == {}
    assert workspace.volumes.names == []
    assert list(workspace.catalogs.schemas) == []
    remaining = set(workspace.files.items) - before
    assert not [path for path in remaining if path.startswith(root)]


def check_validation(cli: Deployer) -> None:
    """Check that the CLI finds no mistake.

    The target `dev` names no deployer: the CLI makes the deployer the owner, and may recommend to
    write the name into the bundle. A bundle that several people deploy cannot name one of them.
    """
    if cli.target == "prod":
        output = cli("validate", "--strict")
        assert "Warning" not in output
    else:
        output = cli("validate")
        warnings = re.findall("Warning: (.*)", output)
        assert set(warnings) <= {"workspace folder has permissions not configured in bundle"}
    assert "Error" not in output


def upload_init_script(cli: Deployer) -> None:
    """Upload the script with its wheels to the bundle's volume, as docs/bundle.md says."""
    wheelhouse = cli.folder.parent / "wheelhouse"
    write_wheel(wheelhouse, "dbx-aml", "0.1.0")
    list_wheels(wheelhouse)
    arguments = [
        "cluster", "snippet", "job", "--config", str(ROOT / "init_scripts"),
        "--wheelhouse", str(wheelhouse), "--folder", INIT_FOLDER,
    ]  # fmt: skip
    result = CliRunner(env=cli.databricks.environment()).invoke(main, arguments)
    assert result.exit_code == 0, result.output


def check_files(cli: Deployer, root: str) -> None:
    """Check that exactly the files of the repository were uploaded."""
    uploaded = {
        path.removeprefix(f"{root}/files/"): item
        for path, item in cli.databricks.files.items.items()
        if path.startswith(f"{root}/files/") and item.kind != "DIRECTORY"
    }
    files = [
        file.relative_to(ROOT)
        for folder in load(BUNDLE)["sync"]["paths"]
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    notebooks = {file for file in files if (ROOT / file).read_bytes().startswith(NOTEBOOK_START)}
    # The name of a notebook has no suffix.
    expected = {str(f.with_suffix("") if f in notebooks else f): f for f in files}
    assert "init_scripts/dbx_aml_init.sh" in expected
    assert set(uploaded) == set(expected)
    for name, item in uploaded.items():
        assert item.content == (ROOT / expected[name]).read_bytes(), name
        assert item.kind == ("NOTEBOOK" if expected[name] in notebooks else "FILE")


def check_compute(cli: Deployer, score: dict[str, Any], root: str) -> None:
    """Check that the job runs on the selected compute, with wheel, link and init script."""
    (config,) = (
        parameter["default"] for parameter in score["parameters"] if parameter["name"] == "config"
    )
    link = cli.databricks.files.content(config)
    assert link and json.loads(link)["dbx_aml"]["registry"] == "databricks-uc"
    _, task = score["tasks"]
    assert task["task_key"] == "score"
    if cli.compute == "serverless":
        assert not score.get("job_clusters")
        (environment,) = score["environments"]
        wheel, uv = environment["spec"]["dependencies"]
        assert uv == "uv>=0.5"
    else:
        assert not score.get("environments")
        (cluster,) = (entry["new_cluster"] for entry in score["job_clusters"])
        (script,) = cluster["init_scripts"]
        files = cli.databricks.volumes.files
        text = files[script["volumes"]["destination"]].decode()
        folder = f"{INIT_FOLDER}/wheelhouse"
        assert f"BAKED_WHEELHOUSE_PATH={folder}\n" in text
        hashes = hashlib.sha256(files[f"{folder}/requirements.txt"]).hexdigest()
        assert f"BAKED_WHEELHOUSE_SHA256={hashes}\n" in text
        assert '"registry": "databricks-uc"' in text
        wheel = task["libraries"][0]["whl"]
    assert wheel.startswith(f"/Workspace{root}/artifacts/.internal/dbx_aml-")
    assert "+" in wheel
    assert cli.databricks.files.content(wheel)


@pytest.mark.slow
@pytest.mark.parametrize("deploying_user", [PRINCIPAL])
@pytest.mark.parametrize("target", TARGETS)
def test_a_service_principal_deploys(deployer: Callable[..., Deployer], target: str) -> None:
    cli = deployer(target, "serverless")
    check_validation(cli)
    assert "20 created, 0 changed, 0 deleted" in cli("deploy")
    workspace = cli.databricks
    for job_id, deployed in workspace.jobs.jobs.items():
        assert deployed["settings"]["email_notifications"] == {}
        access_list = workspace.permissions.access_list("jobs", str(job_id))
        assert {
            (entry.get("service_principal_name") or entry.get("group_name"))
            for entry in access_list
        } == {PRINCIPAL, "users"}
    # Grants on the schema and on its volume.
    assert [list(held) for held in workspace.catalogs.grants.values()] == [["account users"]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_run_after_a_second_deployment_has_the_new_code(
    deployer: Callable[..., Deployer], tmp_path: Path, target: str
) -> None:
    """An environment is kept by the name of its wheel, so each deployment has another name."""
    cli = deployer(target, "serverless")
    workspace = cli.databricks
    workspace.jobs.run_task = WheelTasks(workspace.files, tmp_path / "cluster", workspace.jobs, {})
    module = cli.folder / "dbx_aml" / "cli" / "main.py"
    source = module.read_text(encoding="utf-8")
    try:
        for number in (1, 2):
            module.write_text(f"raise ValueError('code {number}')\n", encoding="utf-8")
            cli("deploy")
            with pytest.raises(AssertionError, match="TERMINATED FAILED"):
                cli("run", "mirror")
            assert output_of_last_run(workspace).endswith(f"ValueError: code {number}\n")
    finally:
        module.write_text(source, encoding="utf-8")
    wheels = [path for path in workspace.files.items if path.endswith(".whl")]
    assert len(wheels) == 1, "a deployment removes the wheels of earlier ones"


def test_production_runs_as_the_service_principal(deployer: Callable[..., Deployer]) -> None:
    cli = deployer("prod", "serverless")
    cli("deploy")
    (score,) = (
        score_job["settings"]
        for score_job in cli.databricks.jobs.jobs.values()
        if score_job["settings"]["name"] == "dbx-aml-score"
    )
    assert score["run_as"] == {"service_principal_name": PRINCIPAL}


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_scheduled_job_scores_new_rows_with_the_deployed_wheel(
    deployer: Callable[..., Deployer], spark: Any, mlflow_store: str, tmp_path: Path
) -> None:
    """End to end: the CLI deploys and starts the job; its command runs from the wheel."""
    cli = scoring_deployer(deployer, mlflow_store, tmp_path)
    workspace = cli.databricks
    tables = tmp_path / "lake" / "warehouse" / f"{SCHEMA}.db"

    def add(first: int, count: int) -> None:
        numbers = spark.range(first, first + count).selectExpr("id", "id * 1D AS x", "2D AS y")
        x_column = "CASE WHEN id = 7 THEN -1D ELSE x END"
        numbers.selectExpr("id", f"{x_column} AS x", "y").write.format("delta").mode("append").save(
            str(tables / "flights")
        )

    add(0, 200)
    register(save_model(tmp_path, choosy_sum, XY), MODEL_NAME)

    cli("deploy")
    output = cli("run", "score")

    assert "TERMINATED SUCCESS" in output
    scored = spark.read.format("delta").load(str(tables / "flights_scored"))
    rows = scored.select("id", "prediction", "_scoring.model_version").collect()
    expected = {number: number * 10 + 2.0 for number in range(200) if number != 7}
    assert {row.id: row.prediction for row in rows} == expected
    assert {row.model_version for row in rows} == {1}
    quarantined = (
        spark.read.format("delta").load(str(tables / "flights_scored_quarantine")).collect()
    )
    assert [row.id for row in quarantined] == [7]
    assert f"ran {tmp_path}/cluster/environments/dbx_aml-" in output_of_last_run(workspace)

    add(200, 3)
    cli("run", "score")
    assert scored.count() == len(expected) + 3
    with pytest.raises(AssertionError, match="TERMINATED FAILED"):
        cli("run", "score", "--params", "write_mode=append")
    output = output_of_last_run(workspace)
    assert "checkpoint_location must go with write_mode 'incremental'" in output
    assert output.endswith("SystemExit: 2")


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.timeout(900)
def test_a_distance_above_its_threshold_fails_the_scheduled_job_and_keeps_the_rows(
    deployer: Callable[..., Deployer], spark: Any, mlflow_store: str, tmp_path: Path
) -> None:
    """End to end, with the task `monitor`: the job sends its mail where a run has failed."""
    from mlflow import MlflowClient

    cli = scoring_deployer(deployer, mlflow_store, tmp_path, "monitor_disabled=false")
    bundle = cli.folder / "databricks.yml"
    text = bundle.read_text(encoding="utf-8")
    assert text.count("default: []\n") == 1, "the default of notification_addresses"
    tables = tmp_path / "lake" / "warehouse" / f"{SCHEMA}.db"

    def add(shift: int) -> None:
        rows = spark.range(1000).selectExpr(f"id % 50 + {shift}D AS x", "2D AS y")
        rows.write.format("delta").mode("append").save(str(tables / "flights"))

    client = MlflowClient()
    experiment_id = client.get_experiment_by_name("tests").experiment_id
    run_id = client.create_run(experiment_id).info.run_id
    register(save_model(tmp_path, choosy_sum, XY), MODEL_NAME, run_id)
    try:
        bundle.write_text(text.replace("default: []", "default: [ana@example.com]"))
        cli("deploy")
        add(0)
        assert "TERMINATED SUCCESS" in cli("run", "score")
        add(30)
        with pytest.raises(AssertionError, match="TERMINATED FAILED"):
            cli("run", "score")
    finally:
        bundle.write_text(text, encoding="utf-8")

    workspace = cli.databricks
    run = workspace.jobs.runs[max(workspace.jobs.runs)]
    states = {task["task_key"]: task["state"]["result_state"] for task in run["tasks"]}
    assert states == {"score": "SUCCESS", "monitor": "FAILED"}
    (monitor,) = [task for task in run["tasks"] if task["task_key"] == "monitor"]
    output = workspace.jobs.output(monitor["run_id"])
    assert "dbx-aml: numbers must be within their thresholds: got psi" in output
    assert output.endswith("SystemExit: 1")
    notified = workspace.jobs.jobs[run["job_id"]]["settings"]["email_notifications"]
    assert notified["on_failure"] == ["ana@example.com"]
    scored = spark.read.format("delta").load(str(tables / "flights_scored"))
    assert scored.count() == 2000
    drift = spark.read.format("delta").load(str(tables / "flights_scored_drift_metrics"))
    drifted = drift.where("dbx_aml_status = 'drift' AND drift_type = 'BASELINE'")
    assert {row.column_name for row in drifted.collect()} == {"x", "prediction"}
    (page,) = (tmp_path / "cluster" / "Volumes").rglob("drift.html")
    assert "Drift over time" in page.read_text(encoding="utf-8")
    (monitoring,) = client.search_runs([experiment_id], "tags.`dbx_aml.monitored_table` LIKE '%'")
    assert [file.path for file in client.list_artifacts(monitoring.info.run_id)] == ["drift.html"]
    assert monitoring.data.metrics["psi/x"] > 0.2


# Table names with three parts need a catalog: Spark's built-in one replaces Unity Catalog.
SCHEMA = "dev_ana_dbx_aml"
MODEL_NAME = f"spark_catalog.{SCHEMA}.arrival_delay"


def scoring_deployer(
    deployer: Callable[..., Deployer], mlflow_store: str, tmp_path: Path, *variables: str
) -> Deployer:
    """Return a deployer whose jobs run here, on tables in the folder `lake`."""
    link = tmp_path / "link" / "config.json"
    servers = {"databricks_tracking_uri": mlflow_store, "registry": "databricks"}
    link.parent.mkdir()
    link.write_text(json.dumps({"dbx_aml": {"mode": "databricks", **servers}}))
    cli = deployer("dev", "serverless", "catalog=spark_catalog", f"config={link}", *variables)
    cli.databricks.catalogs.names.add("spark_catalog")
    cli.databricks.jobs.run_task = WheelTasks(
        cli.databricks.files,
        tmp_path / "cluster",
        cli.databricks.jobs,
        {
            "DBX_AML_LOCAL_ROOT": str(tmp_path / "lake"),
            # On Databricks, MLflow's own server is the one of the workspace.
            "MLFLOW_TRACKING_URI": mlflow_store,
            "JAVA_TOOL_OPTIONS": SHORT_JOB_JAVA_OPTIONS,
        },
    )
    return cli


def output_of_last_run(workspace: Databricks) -> str:
    """Return the output of the one task that ran; the task `monitor` is off by default."""
    tasks = workspace.jobs.runs[max(workspace.jobs.runs)]["tasks"]
    (task,) = [task for task in tasks if task["state"]["result_state"] != "DISABLED"]
    return workspace.jobs.output(task["run_id"])


def register(model: str, name: str, run_id: str | None = None) -> None:
    """Register the folder of a model as the first version, with the alias "champion"."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model(name)
    version = client.create_model_version(name, source=model, run_id=run_id).version
    client.set_registered_model_alias(name, "champion", version)
