"""`dbx-aml cluster`: options, exit codes, tables and JSON."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from databricks.sdk import WorkspaceClient

import dbx_aml
from dbx_aml import Link
from dbx_aml.cli import cluster_attach
from dbx_aml.cli.main import main
from dbx_aml.cluster import client as client_module
from dbx_aml.cluster.init_script import read_init_script
from dbx_aml.cluster.runtimes import known_runtimes
from tests.support.azureml import Workspace
from tests.support.databricks import TOKEN, USER, Databricks
from tests.support.databricks.boot import leaves_marker
from tests.support.node.wheel import list_wheels, sha256, write_wheel

URI = Workspace().tracking_uri
VOLUME = "/Volumes/main/ml/dbx_aml"
INIT_SCRIPT = (
    "init-script", "--wheelhouse", "wheels", "--wheelhouse-path", "/Volumes/main/ml/w"
)  # fmt: skip
FILES = ("--wheelhouse", "wheels", "--folder", VOLUME)
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a subcommand in a folder with a config.json and a wheelhouse."""
    monkeypatch.chdir(tmp_path)
    Link(mode="aml", aml_tracking_uri=URI, client_secret="ml/aml").save(tmp_path)
    write_wheel(tmp_path / "wheels", "dbx-aml", "0.1.0")
    list_wheels(tmp_path / "wheels")

    def invoke(*arguments: str, input: str | None = None) -> Result:
        result = CliRunner().invoke(main, ["cluster", *arguments], input=input)
        assert TOKEN not in result.output
        return result

    return invoke


@pytest.fixture
def workspace(databricks: Databricks, run: Run, monkeypatch: pytest.MonkeyPatch) -> Databricks:
    """A workspace with a volume; init scripts succeed and write a marker."""
    monkeypatch.setattr(client_module, "POLL_INTERVAL_S", 0.01)
    databricks.volumes.add("main.ml.dbx_aml")
    databricks.boot.run_script = leaves_marker()
    return databricks


def test_attach_prints_change_progress_and_result(workspace: Databricks, run: Run) -> None:
    team = workspace.clusters.add("team", spark_env_vars={"A": "1"})
    folder = f"{VOLUME}/{team.cluster_id}"
    result = run("attach", "team", "--config", "config.json", *FILES, "--yes")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"team ({team.cluster_id}): RUNNING, dedicated, 17.3.x-scala2.13",
        "+ init_scripts:",
        f"+   volumes {folder}/dbx_aml_init.sh",
        "  spark_env_vars:",
        "    A: (not shown)",
        *(
            f"+ {folder}/{name}"
            for name in (
                "wheelhouse/dbx_aml-0.1.0-py3-none-any.whl",
                "wheelhouse/wheelhouse.json",
                "wheelhouse/requirements.txt",
                "config.json",
                "dbx_aml_init.sh",
                "attached.json",
            )
        ),
        f"team ({team.cluster_id}) is attached, RUNNING: init script ok, 1 package added from "
        "wheelhouse /Volumes/main/ml/wheelhouse in 2.1 s",
    ]
    assert result.stderr.splitlines() == [
        "team restarts: all work on it ends now",
        f"uploading 5 files to {folder}",
        "team is RESTARTING, waiting",
        "reading the result of the init script on the driver",
    ]
    result = run("attach", "team", "--wheelhouse", "wheels", "--yes")
    assert result.stdout.splitlines()[-1].endswith("is attached already: nothing to do")
    assert result.exit_code == 0


def test_attach_and_snippets_name_whoever_may_write_to_the_volume(
    workspace: Databricks, run: Run
) -> None:
    """They can run code as root on the clusters."""
    workspace.clusters.add("team")
    for principal, privileges in {
        USER: ["WRITE_VOLUME"],
        "readers": ["READ_VOLUME"],
        "engineers": ["READ_VOLUME", "WRITE_VOLUME"],
        "operators": ["ALL_PRIVILEGES"],
    }.items():
        workspace.grants.grant("volume", "main.ml.dbx_aml", principal, *privileges)
    for command in (["attach", "team"], ["snippet", "job"]):
        result = run(*command, *FILES, "--dry-run")
        assert result.exit_code == 0, result.stderr
        (line,) = (line for line in result.stderr.splitlines() if "as root" in line)
        assert line.startswith(f"can write to {VOLUME}")
        assert line.endswith(", and so run code as root on its clusters: engineers, operators")
    workspace.deny("effective-permissions")
    result = run("attach", "team", *FILES, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_dry_run_prints_the_change_and_writes_nothing(workspace: Databricks, run: Run) -> None:
    workspace.clusters.add("team", spark_env_vars={"DBX_AML_MODE": "dual", "A": "1"})
    result = run("attach", "team", *FILES, "--dry-run")
    assert result.exit_code == 0
    assert "+ init_scripts:" in result.stdout
    assert result.stderr == "variables of the cluster may override the link: DBX_AML_MODE\n"
    assert workspace.writes() == []
    assert run("attach", "team", *FILES, "--yes").exit_code == 0
    workspace.forget_requests()
    result = run("detach", "team", "--dry-run")
    assert "- init_scripts:" in result.stdout
    assert workspace.writes() == []


def test_attach_asks_on_a_terminal_and_needs_yes_without(
    workspace: Databricks, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = workspace.clusters.add("team")
    result = run("attach", "team", *FILES)
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    monkeypatch.setattr(cluster_attach, "_is_interactive", lambda: True)
    result = run("attach", "team", *FILES, input="n\n")
    assert result.exit_code == 1
    assert "team restarts: all work on it ends now\nContinue? [y/N]" in result.stderr
    assert workspace.writes() == []
    assert run("attach", "team", *FILES, input="y\n").exit_code == 0
    assert team.spec["init_scripts"]


def test_detach_finds_the_folder_of_the_attach(workspace: Databricks, run: Run) -> None:
    asleep = workspace.clusters.add("asleep", state="TERMINATED", spark_env_vars={"A": "1"})
    spec_before = dict(asleep.spec)
    result = run("attach", "asleep", *FILES, "--yes")
    assert "asleep is TERMINATED and stays so" in result.stderr
    assert "asleep is TERMINATED: it will be prepared at its next start" in result.stderr
    assert result.stdout.splitlines()[-1] == f"asleep ({asleep.cluster_id}) is attached, TERMINATED"
    result = run("detach", "asleep", "--yes")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == (
        f"asleep ({asleep.cluster_id}) is TERMINATED and as it was before"
    )
    assert asleep.spec == spec_before


def test_files_go_to_the_users_own_folder_by_default(workspace: Databricks, run: Run) -> None:
    team = workspace.clusters.add("team")
    wheels = ["--wheelhouse", "wheels"]
    result = run("attach", team.cluster_id, *wheels, "--yes")
    assert result.exit_code == 2
    assert "give --folder /Volumes/" in result.stderr
    result = run("attach", team.cluster_id, *wheels, "--method", "libraries", "--yes")
    assert result.exit_code == 0, result.stderr
    home = f"/Workspace/Users/{USER}/.dbx_aml/{team.cluster_id}"
    assert team.spec["spark_env_vars"]["DBX_AML_CONFIG"] == f"{home}/config.json"


def test_status_prints_fields_or_json(workspace: Databricks, run: Run) -> None:
    team = workspace.clusters.add("team")
    result = run("status", "team")
    assert (result.exit_code, result.stderr) == (0, "")
    assert ["attached", "no"] in [line.split() for line in result.stdout.splitlines()]
    run("attach", "team", *FILES, "--yes")
    result = run("status", "team")
    attached = f"^attached +by init-script, version {re.escape(dbx_aml.__version__)}$"
    assert re.search(attached, result.stdout, re.MULTILINE)
    assert "azureml-mlflow 1.62.0.post6" in result.stdout
    assert re.search("^MLFLOW_TRACKING_URI +azureml://x$", result.stdout, re.MULTILINE)
    (workspace.boot.root(team.cluster_id) / "databricks/dbx_aml/marker.json").unlink()
    result = run("status", "team", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["is_attached"] is True
    assert result.stderr.startswith("dbx-aml: its driver has no marker")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attach", "nobody", *FILES, "--yes"], 1, "cluster must exist: got 'nobody'"),
        (["attach", "team", *FILES, "--config", "none.json"], 1, "link must be a config.json"),
        (["attach", "team", *FILES, "--folder", "/tmp/x"], 2, "folder must be in a volume or in"),
        (["attach", "team", "--folder", VOLUME], 2, "must come from a wheelhouse: got none; run"),
        (["attach", "team", "--method", "libraries"], 2, "must come from a wheelhouse: got none"),
        (["attach", "team", "--method", "magic"], 2, "'magic' is not one of"),
        (["attach", "shared", *FILES, "--folder", "/Shared/x"], 2, "folder must be in a volume,"),
        (["status", "team", "--profile", "nope"], 1, "Databricks must be set up"),
        (["detach", "team", "--yes"], 1, "must be attached: "),
        (["snippet", "job"], 2, "Missing option '--folder'"),
        (["snippet", "job", "--folder", VOLUME], 2, "must come from a wheelhouse: got none"),
        (["init-script"], 2, "must come from a wheelhouse: got none; run 'dbx-aml cluster wheel"),
        (INIT_SCRIPT[:-2], 2, "wheelhouse_path must be an absolute path on the cluster: got ''"),
        ([*INIT_SCRIPT, "--config", "/no/such"], 1, "link must be a config.json"),
        ([*INIT_SCRIPT, "--on-failure", "maybe"], 2, "'maybe' is not one of 'continue', 'stop'"),
        ([*INIT_SCRIPT, "--wheelhouse-path", "x"], 2, "wheelhouse_path must be an absolute path"),
    ],
)
def test_a_wrong_argument_is_one_line_with_its_exit_code(
    workspace: Databricks,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    if "--profile" in arguments:
        monkeypatch.delenv("DATABRICKS_HOST")
        monkeypatch.delenv("DATABRICKS_TOKEN")
    workspace.clusters.add("team")
    workspace.clusters.add("shared", data_security_mode="USER_ISOLATION")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert code == 2 or len(result.stderr.splitlines()) == 1
    assert workspace.writes() == []


def test_init_script_prints_the_script_with_the_link_and_the_options(
    run: Run, tmp_path: Path
) -> None:
    result = run(*INIT_SCRIPT, "--on-failure", "stop", "--init-timeout-s", "60")
    assert (result.exit_code, result.stderr) == (0, "")
    lines, template = result.stdout.splitlines(), read_init_script().splitlines()
    assert [line for line in template if line not in lines] == [
        "BAKED_WHEELHOUSE_PATH=''", "BAKED_WHEELHOUSE_SHA256=''",
        "BAKED_ON_FAILURE=''", "BAKED_INIT_TIMEOUT_S=''", "BAKED_CONFIG=''",
    ]  # fmt: skip
    assert "BAKED_WHEELHOUSE_PATH=/Volumes/main/ml/w" in lines
    assert f"BAKED_WHEELHOUSE_SHA256={sha256(tmp_path / 'wheels/requirements.txt')}" in lines
    assert "BAKED_ON_FAILURE=stop" in lines
    config = result.stdout.split("BAKED_CONFIG='")[1].split("'\n")[0]
    assert json.loads(config)["dbx_aml"]["client_secret"] == {"scope": "ml", "key": "aml"}


def test_init_script_for_a_package_index_carries_the_list_of_the_runtime(
    run: Run, tmp_path: Path
) -> None:
    wheel = tmp_path / "wheels" / "dbx_aml-0.1.0-py3-none-any.whl"
    result = run("init-script", "--runtime", "17.3-ml", "--wheel", str(wheel))
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout.split("BAKED_REQUIREMENTS='")[1].split("'\n")[0]
    lines = known_runtimes()["17.3-ml"].requirements.splitlines()
    assert text.splitlines() == [*lines, f"dbx-aml==0.1.0 --hash=sha256:{sha256(wheel)}"]
    assert "BAKED_WHEELHOUSE_PATH=''\n" in result.stdout
    refused = run("init-script", "--runtime", "15.4", "--wheel", str(wheel))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "mlflow-skinny must be <4,>=2.19 for dbx-aml" in refused.stderr
    refused = run("init-script", "--runtime", "17.3-ml")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "package index of the nodes: got none; pass for example --wheel" in refused.stderr
    other = write_wheel(tmp_path / "wheels", "other", "1")
    refused = run("init-script", "--runtime", "17.3-ml", "--wheel", str(other))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "wheel must be of dbx-aml: got" in refused.stderr


def test_init_script_writes_line_feeds_where_a_text_stream_would_write_crlf(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*INIT_SCRIPT, "--output", "init.sh").output == ""
    script = (tmp_path / "init.sh").read_bytes()
    assert script.startswith(b"#!/") and b"\r" not in script

    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\r\n", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    main(["cluster", *INIT_SCRIPT])
    assert stream.buffer.getvalue() == script  # type: ignore[attr-defined]


def test_the_policy_snippet_is_the_body_of_a_cluster_policy(
    workspace: Databricks, run: Run
) -> None:
    result = run("snippet", "policy", *FILES, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert workspace.writes() == []
    result = run("snippet", "policy", *FILES)
    assert result.stderr.splitlines() == [
        f"uploading 5 files to {VOLUME}",
        f"in standard access mode the metastore's allowlist must have {VOLUME}/dbx_aml_init.sh",
    ]
    answer = WorkspaceClient().api_client.do(
        "POST", "/api/2.0/policies/clusters/create", body=json.loads(result.stdout)
    )
    policy = workspace.policies.policies[answer["policy_id"]]
    assert json.loads(policy["definition"]) == {
        "init_scripts.0.volumes.destination": {
            "type": "fixed",
            "value": f"{VOLUME}/dbx_aml_init.sh",
        },
    }
    result = run("snippet", "policy", *FILES, "--method", "libraries")
    body = json.loads(result.stdout)
    wheel = f"{VOLUME}/wheelhouse/dbx_aml-0.1.0-py3-none-any.whl"
    assert body["libraries"] == [{"whl": wheel}]
    assert wheel in workspace.volumes.files
    assert not [name for name in body["definition"] if "init_scripts" in name]


def test_job_and_serverless_snippets_are_yaml_of_a_job(workspace: Databricks, run: Run) -> None:
    result = run("snippet", "job", *FILES)
    assert result.exit_code == 0, result.stderr
    assert yaml.safe_load(result.stdout)["job_clusters"][0]["new_cluster"] == {
        "init_scripts": [{"volumes": {"destination": f"{VOLUME}/dbx_aml_init.sh"}}],
    }
    result = run("snippet", "serverless", *FILES)
    (environment,) = yaml.safe_load(result.stdout)["environments"]
    wheel = f"{VOLUME}/wheelhouse/dbx_aml-0.1.0-py3-none-any.whl"
    assert environment["spec"]["dependencies"] == [wheel]
    assert f'dbx_aml.connect(config="{VOLUME}/config.json")' in result.stdout
