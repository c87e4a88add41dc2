"""The init script with a link in it never holds a secret, and writes none."""

import json
import subprocess
from pathlib import Path

import pytest

from dbx_aml import Link
from dbx_aml._common.errors import ArgumentError, LinkError
from dbx_aml._common.redact import redact
from dbx_aml.cluster.files import collect_files
from dbx_aml.cluster.init_script import read_init_script, render
from dbx_aml.cluster.node.spark_environment import link_variables

WHEELHOUSE = {"wheelhouse_path": "/Volumes/main/ml/wheelhouse", "wheelhouse_sha256": "0" * 64}
# Invented texts in the shapes of real secrets.
SECRETS = (
    "dapi" + "0123456789abcdef" * 2,
    "Xyz8Q~" + "abcdefghijklmnopqrstuvwxyz012345",
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.x",
    "{{secrets/ml/aml-secret}}",
    "DefaultEndpointsProtocol=https;AccountKey=abc",
)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(
        (ArgumentError, LinkError), match="rendered init script must hold no secret"
    ) as caught:
        render(Link(experiment=f"/Users/{secret}"), **WHEELHOUSE)
    assert secret not in str(caught.value)


def test_a_password_in_a_uri_is_refused() -> None:
    with pytest.raises(LinkError, match="no secret: got one in 'databricks_tracking_uri'"):
        render(Link(databricks_tracking_uri="https://ana:s3cret@mlflow.contoso.com"), **WHEELHOUSE)


@pytest.mark.parametrize("method", ["init-script", "libraries", "policy"])
def test_each_method_refuses_a_config_with_a_password_in_a_uri(tmp_path: Path, method: str) -> None:
    uri = "https://ana:pa/s3cret@mlflow.contoso.com"
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"dbx_aml": {"mode": "databricks", "databricks_tracking_uri": uri}}))
    for name in ("b-1-py3-none-any.whl", "requirements.txt", "wheelhouse.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(LinkError, match=r"config\.json must hold no secret") as caught:
        collect_files(file, tmp_path, method=method)
    assert "s3cret" not in str(caught.value)


def test_the_variables_of_a_node_have_no_password(tmp_path: Path) -> None:
    link = Link(databricks_tracking_uri="https://mlflow.contoso.com/?token=s3cret")
    with pytest.raises(LinkError, match="environment of the cluster must hold no secret") as caught:
        link_variables(link, tmp_path)
    assert "s3cret" not in str(caught.value)


TEXTS = (
    "got 'https://user:pa@ss@mlflow.example'; retry",
    "index https://user:pa/ss@pypi.example/simple/ has none",
    "https://mlflow.example/?sig=abc&se=2030",
    "x?Access_Token=abc%2F",
    "Server=a;Pwd=abc",
    "AccountKey=abc==",
    f"refused {SECRETS[0]}, {SECRETS[1]}, {SECRETS[2]}",
    "Authorization: Bearer abcdefghijklmnop123",
    "aB3/" * 21 + "aB==",
    "/Volumes/main/ml/wheelhouse/requirements.txt must be readable",
    "package index must have dbx-aml 0.1.0: got 'no answer'; check the index and the network",
)


@pytest.mark.shell
def test_the_shell_of_a_node_redacts_as_the_package_does() -> None:
    functions = read_init_script().replace(
        'main "$@"\n', 'while read -r text; do redact "$text"; done'
    )
    finished = subprocess.run(
        ["bash", "-c", functions],
        input="\n".join([*TEXTS, "got correct-horse!", ""]),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "TEAM_TOKEN": "correct-horse", "A_TOKEN_FILE": "no answer"},
    )
    assert finished.stdout.splitlines() == [*map(redact, TEXTS), "got ***!"]


def test_a_secret_of_this_machines_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(databricks_tracking_uri="https://mlflow.contoso.com/correct-horse")
    assert "correct-horse" in render(link, **WHEELHOUSE)
    monkeypatch.setenv("TEAM_CLIENT_SECRET", "correct-horse")
    with pytest.raises(ArgumentError, match="must hold no secret"):
        render(link, **WHEELHOUSE)
