"""`dbx-aml cluster init-script`: a script with the link in it, and never a secret."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dbx_aml import Link
from dbx_aml._common.errors import ArgumentError
from dbx_aml.cli.main import main
from dbx_aml.cluster.init_script import render, script
from tests.support.node.node import LINK

PORTAL = {
    "subscription_id": LINK["DBX_AML_SUBSCRIPTION_ID"],
    "resource_group": "rg-ml",
    "workspace_name": "mlw-team",
}
SECRET = {"scope": "ml", "key": "aml-secret"}
# Made up, in the shapes that real ones have.
SECRETS = (
    "dapi" + "0123456789abcdef" * 2,
    "Xyz8Q~" + "abcdefghijklmnopqrstuvwxyz012345",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.x",
    "{{secrets/ml/aml-secret}}",
    "DefaultEndpointsProtocol=https;AccountKey=abc",
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cluster", "init-script", *arguments])


def config(folder: Path, **ours: object) -> str:
    file = folder / "config.json"
    file.write_text(json.dumps({**PORTAL, "dbx_aml": ours} if ours else PORTAL))
    return str(file)


def test_the_script_is_printed_with_the_link_and_nothing_else_changed(tmp_path: Path) -> None:
    file = config(tmp_path, mode="aml", region="westeurope", client_secret=SECRET)
    done = run("--config", file, "--wheelhouse-path", "/Volumes/main/ml/w", "--on-failure", "stop")
    assert (done.exit_code, done.stderr) == (0, "")
    lines, plain = done.stdout.splitlines(), script().splitlines()
    assert [line for line in plain if line not in lines] == [
        "BAKED_WHEELHOUSE_PATH=''", "BAKED_ON_FAILURE=''", "BAKED_CONFIG=''",
    ]  # fmt: skip
    assert "BAKED_WHEELHOUSE_PATH=/Volumes/main/ml/w" in lines
    assert "BAKED_ON_FAILURE=stop" in lines
    written = done.stdout.split("BAKED_CONFIG='")[1].split("'\n")[0]
    assert json.loads(written)["dbx_aml"]["client_secret"] == SECRET


@pytest.mark.parametrize(("ours", "mode"), [({}, "dual"), ({"mode": "aml"}, "aml")])
def test_a_file_from_the_portal_means_what_it_means_on_a_cluster(
    tmp_path: Path, ours: dict[str, object], mode: str
) -> None:
    config(tmp_path, **ours)
    done = run("--config", str(tmp_path))
    assert done.exit_code == 0
    assert f'"mode": "{mode}"' in done.stdout


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, secret: str) -> None:
    done = run("--config", config(tmp_path, mode="aml", experiment=f"/Users/{secret}"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "rendered init script must hold no secret" in done.stderr
    assert secret not in done.stderr


def test_a_secret_in_an_address_or_of_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ArgumentError, match="must hold no secret"):
        render(Link(databricks_tracking_uri="https://ana:s3cret@mlflow.contoso.com"))
    plain = Link(databricks_tracking_uri="https://mlflow.contoso.com/correct-horse")
    assert "correct-horse" in render(plain)
    monkeypatch.setenv("TEAM_CLIENT_SECRET", "correct-horse")
    with pytest.raises(ArgumentError, match="must hold no secret"):
        render(plain)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "/no/such"], 2, "'/no/such' does not exist"),
        (["--on-failure", "maybe"], 2, "'maybe' is not one of 'continue', 'stop'"),
        (
            ["--wheelhouse-path", "dbfs:/x"],
            2,
            "wheelhouse_path must be an absolute path",
        ),
        (
            ["--wheelhouse-path", "/x\n$(id)"],
            2,
            "wheelhouse_path must be an absolute path",
        ),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    config(tmp_path, mode="aml")
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())


def test_a_link_that_does_not_fit_is_refused_before_a_cluster_sees_it(tmp_path: Path) -> None:
    done = run("--config", config(tmp_path, mode="both"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "mode must be one of" in done.stderr
