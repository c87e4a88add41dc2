"""`dbx-aml cluster`: what a person types and sees."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from databricks.sdk import WorkspaceClient

from dbx_aml import Link
from dbx_aml.cli import cluster_attach as attach
from dbx_aml.cli.main import main
from dbx_aml.cluster import driver as outcome
from dbx_aml.cluster import libraries as library
from dbx_aml.cluster import wait
from tests.support.azureml import Workspace
from tests.support.databricks import TOKEN, USER, Databricks
from tests.support.databricks.boot import leaves_marker

URI = Workspace().tracking_uri
VOLUME = "/Volumes/main/ml/dbx_aml"
Run = Callable[..., Result]


@pytest.fixture
def run(databricks: Databricks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command where a config.json and a folder of wheels are."""
    for module in (library, outcome, wait):
        monkeypatch.setattr(module, "_POLL_S", 0.01)
    monkeypatch.chdir(tmp_path)
    Link(mode="aml", aml_tracking_uri=URI, client_secret="ml/aml").save(tmp_path)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "dbx_aml-0.1.0-py3-none-any.whl").write_bytes(b"PK")
    (tmp_path / "wheels" / "requirements.txt").write_text("")
    (tmp_path / "wheels" / "wheelhouse.json").write_text('{"runtime": "17.3"}')
    databricks.volumes.add("main.ml.dbx_aml")
    databricks.boot.run_script = leaves_marker()

    def invoke(*arguments: str, **more: str) -> Result:
        done = CliRunner().invoke(main, ["cluster", *arguments], **more)
        assert TOKEN not in done.output
        return done

    return invoke


def test_attach_shows_the_difference_changes_and_says_how_it_ended(
    databricks: Databricks, run: Run
) -> None:
    team = databricks.clusters.add("team", spark_env_vars={"A": "1"})
    folder = f"{VOLUME}/{team.cluster_id}"
    done = run("attach", "team", "--config", "config.json", "--folder", VOLUME, "--yes")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"team ({team.cluster_id}): RUNNING, dedicated, 17.3.x-scala2.13",
        "+ init_scripts:",
        f"+   volumes {folder}/dbx_aml_init.sh",
        "  spark_env_vars:",
        "    A: (not shown)",
        f"+   MLFLOW_TRACKING_URI: {URI}",
        f"+   MLFLOW_REGISTRY_URI: {URI}",
        "+   AZUREML_CURRENT_CLOUD: AzureCloud",
        "+   DBX_AML_RETRY_TIMEOUT_S: 120",
        f"  files in {folder} are written",
        f"team ({team.cluster_id}) is attached, RUNNING: init script ok, 1 package added from "
        "index in 2.1 s",
    ]
    assert done.stderr.splitlines() == [
        "team restarts: whatever runs on it now ends",
        f"uploaded 2 files to {folder}",
        "team is RESTARTING, waiting",
    ]
    done = run("attach", "team", "--yes")
    assert done.stdout.splitlines()[-1].endswith("is attached already: nothing to do")
    assert done.exit_code == 0


def test_a_dry_run_shows_the_same_and_writes_nothing(databricks: Databricks, run: Run) -> None:
    databricks.clusters.add("team")
    done = run("attach", "team", "--folder", VOLUME, "--dry-run")
    assert done.exit_code == 0
    assert "+ init_scripts:" in done.stdout
    assert databricks.writes() == []
    assert run("attach", "team", "--folder", VOLUME, "--yes").exit_code == 0
    databricks.forget_requests()
    done = run("detach", "team", "--dry-run")
    assert "- init_scripts:" in done.stdout
    assert databricks.writes() == []


def test_variables_that_go_before_the_link_are_named(databricks: Databricks, run: Run) -> None:
    databricks.clusters.add("team", spark_env_vars={"DBX_AML_MODE": "dual", "A": "1"})
    done = run("attach", "team", "--folder", VOLUME, "--dry-run")
    assert done.stderr == "variables of the cluster go before the link: DBX_AML_MODE\n"


def test_a_person_is_asked_and_may_say_no(
    databricks: Databricks, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = databricks.clusters.add("team")
    done = run("attach", "team", "--folder", VOLUME)
    assert done.exit_code == 2
    assert "Nobody is there to ask: add --yes" in done.stderr
    monkeypatch.setattr(attach, "_is_somebody_there", lambda: True)
    done = run("attach", "team", "--folder", VOLUME, input="n\n")
    assert done.exit_code == 1
    assert "team restarts: whatever runs on it now ends\nGo on? [y/N]" in done.stderr
    assert databricks.writes() == []
    assert run("attach", "team", "--folder", VOLUME, input="y\n").exit_code == 0
    assert team.spec["init_scripts"]


def test_detach_puts_back_what_was_there_without_being_told_where(
    databricks: Databricks, run: Run
) -> None:
    asleep = databricks.clusters.add("asleep", state="TERMINATED", spark_env_vars={"A": "1"})
    before = dict(asleep.spec)
    done = run("attach", "asleep", "--folder", VOLUME, "--yes")
    assert "asleep is TERMINATED and stays so" in done.stderr
    assert "asleep is TERMINATED: it will be prepared at its next start" in done.stderr
    assert done.stdout.splitlines()[-1] == f"asleep ({asleep.cluster_id}) is attached, TERMINATED"
    done = run("detach", "asleep", "--yes")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == (
        f"asleep ({asleep.cluster_id}) is TERMINATED and as it was before"
    )
    assert asleep.spec == before
    done = run("detach", "asleep", "--yes")
    assert done.exit_code == 1
    assert "must be attached: there is no record" in done.stderr


def test_without_a_folder_files_go_to_the_callers_own(databricks: Databricks, run: Run) -> None:
    team = databricks.clusters.add("team")
    assert run("attach", team.cluster_id, "--yes").exit_code == 0
    home = f"/Workspace/Users/{USER}/.dbx_aml/{team.cluster_id}"
    assert team.spec["init_scripts"] == [{"workspace": {"destination": f"{home}/dbx_aml_init.sh"}}]


def test_status_is_a_table_for_people_and_json_for_programs(
    databricks: Databricks, run: Run
) -> None:
    team = databricks.clusters.add("team")
    done = run("status", "team")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()][2] == ["attached", "no"]
    run("attach", "team", "--folder", VOLUME, "--yes")
    done = run("status", "team")
    assert "via init-script, by version 0.1.0" in done.stdout
    assert "azureml-mlflow 1.62.0.post6" in done.stdout
    (databricks.boot.root(team.cluster_id) / "databricks/dbx_aml/marker.json").unlink()
    done = run("status", "team", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["is_attached"] is True
    assert done.stderr == (
        "dbx-aml: its driver has no marker: the init script has not run; restart it\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attach", "nobody", "--yes"], 1, "cluster must exist: got 'nobody'"),
        (["attach", "team", "--config", "none.json"], 1, "link must be a config.json"),
        (
            ["attach", "team", "--folder", "/tmp/x"],
            2,
            "folder must be in a volume or in the work",
        ),
        (
            ["attach", "team", "--method", "libraries"],
            2,
            "must come from wheels: got none",
        ),
        (["attach", "team", "--method", "magic"], 2, "'magic' is not one of"),
        (["attach", "shared", "--yes"], 1, "must have its init script in a volume"),
        (["status", "team", "--profile", "nope"], 1, "Databricks must be set up"),
        (["detach", "team", "--yes"], 1, "must be attached: there is no record"),
        (["snippet", "job"], 2, "Missing option '--folder'"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_exit_code(
    databricks: Databricks,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    if "--profile" in arguments:
        monkeypatch.delenv("DATABRICKS_HOST")
        monkeypatch.delenv("DATABRICKS_TOKEN")
    databricks.clusters.add("team")
    databricks.clusters.add("shared", data_security_mode="USER_ISOLATION")
    done = run(*arguments)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert code == 2 or len(done.stderr.splitlines()) == 1
    assert databricks.writes() == []


def test_policy_prints_what_an_administrator_makes_a_policy_of(
    databricks: Databricks, run: Run
) -> None:
    done = run("policy", "--folder", VOLUME, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert databricks.writes() == []
    done = run("policy", "--folder", VOLUME)
    assert done.stderr.splitlines() == [
        f"uploaded 2 files to {VOLUME}",
        f"in standard access mode the metastore's allowlist must have {VOLUME}/dbx_aml_init.sh",
    ]
    made = WorkspaceClient().api_client.do(
        "POST", "/api/2.0/policies/clusters/create", body=json.loads(done.stdout)
    )
    assert json.loads(databricks.policies.all[made["policy_id"]]["definition"]) == {
        "spark_env_vars.MLFLOW_TRACKING_URI": {"type": "fixed", "value": URI},
        "spark_env_vars.MLFLOW_REGISTRY_URI": {"type": "fixed", "value": URI},
        "spark_env_vars.AZUREML_CURRENT_CLOUD": {"type": "fixed", "value": "AzureCloud"},
        "spark_env_vars.DBX_AML_RETRY_TIMEOUT_S": {"type": "fixed", "value": "120"},
        "init_scripts.0.volumes.destination": {
            "type": "fixed", "value": f"{VOLUME}/dbx_aml_init.sh",
        },
    }  # fmt: skip
    done = run("policy", "--folder", VOLUME, "--method", "libraries", "--wheelhouse", "wheels")
    found = json.loads(done.stdout)
    wheel = f"{VOLUME}/wheelhouse/dbx_aml-0.1.0-py3-none-any.whl"
    assert found["libraries"] == [{"whl": wheel}]
    assert wheel in databricks.volumes.files
    assert not [name for name in found["definition"] if "init_scripts" in name]


def test_snippets_are_yaml_for_jobs_without_a_cluster_to_attach(
    databricks: Databricks, run: Run
) -> None:
    done = run("snippet", "job", "--folder", VOLUME)
    assert done.exit_code == 0, done.stderr
    assert yaml.safe_load(done.stdout)["job_clusters"][0]["new_cluster"] == {
        "init_scripts": [{"volumes": {"destination": f"{VOLUME}/dbx_aml_init.sh"}}],
        "spark_env_vars": {
            "MLFLOW_TRACKING_URI": URI,
            "MLFLOW_REGISTRY_URI": URI,
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
            "DBX_AML_RETRY_TIMEOUT_S": "120",
        },
    }
    done = run("snippet", "serverless", "--folder", VOLUME, "--wheelhouse", "wheels")
    (made,) = yaml.safe_load(done.stdout)["environments"]
    assert made["spec"]["dependencies"] == [f"{VOLUME}/wheelhouse/dbx_aml-0.1.0-py3-none-any.whl"]
    assert f'dbx_aml.connect(config="{VOLUME}/config.json")' in done.stdout
