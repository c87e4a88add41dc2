"""The path of the signed-in user's experiment: on Databricks, with databricks-sdk, and without."""

from __future__ import annotations

import getpass
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import dbx_aml
from dbx_aml import Link, experiment_path
from dbx_aml._common.errors import ClusterError, ExperimentPathError, ServiceError
from dbx_aml.cluster import experiment_path as module
from dbx_aml.link.connected_link import set_connected_link
from tests.support.databricks import USER, Databricks, databricks_service
from tests.support.databricks.workspace_file import Item
from tests.support.isolation import isolate_from_machine

PRINCIPAL = "5e3b0000-0000-4000-8000-000000000001"


class SignedInSession:
    """A session in which SQL knows the user."""

    def __init__(self, user: str) -> None:
        self._user = user

    def sql(self, text: str) -> Any:
        assert text == "SELECT current_user()"
        return SimpleNamespace(first=lambda: (self._user,))


def on_databricks(monkeypatch: pytest.MonkeyPatch, user: str, files: Path) -> None:
    """Be a notebook or a job of a user on a cluster, whose workspace files are in a folder."""
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setattr(module, "current_spark", lambda: SignedInSession(user))
    monkeypatch.setattr(module, "_WORKSPACE_FILES", files)


@pytest.mark.parametrize("user", ["ana@contoso.com", PRINCIPAL, "zoë@größe.de"])
def test_on_databricks_the_path_is_in_the_home_of_the_user_and_its_folder_is_made(
    user: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_databricks(monkeypatch, user, tmp_path)

    assert experiment_path("iris") == f"/Users/{user}/iris"
    assert list(tmp_path.iterdir()) == []
    assert experiment_path("iris", folder="team/2026") == f"/Users/{user}/team/2026/iris"
    assert (tmp_path / "Users" / user / "team" / "2026").is_dir()


def test_on_databricks_a_folder_that_cannot_be_made_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_databricks(monkeypatch, "ana@contoso.com", tmp_path)
    (tmp_path / "Users").write_text("a file")

    with pytest.raises(ExperimentPathError, match=r"'/Users/bob/team' cannot be made: .*Errno 20"):
        experiment_path("iris", folder="team", user="bob")


def test_with_databricks_sdk_the_user_is_the_signed_in_one_and_the_folder_is_made(
    databricks: Databricks,
) -> None:
    assert experiment_path("iris") == f"/Users/{USER}/iris"
    assert experiment_path("iris", folder="team") == f"/Users/{USER}/team/iris"
    assert databricks.files.items[f"/Users/{USER}/team"].kind == "DIRECTORY"
    assert experiment_path("/Workspace/Shared/trials/iris") == "/Shared/trials/iris"
    assert databricks.files.items["/Shared/trials"].kind == "DIRECTORY"
    assert experiment_path("/Shared/iris") == "/Shared/iris"


def test_a_service_principal_has_its_application_id_as_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate_from_machine(monkeypatch, tmp_path)
    with databricks_service(tmp_path / "drivers", PRINCIPAL) as databricks:
        for name, value in databricks.environment().items():
            monkeypatch.setenv(name, value)
        assert experiment_path("iris") == f"/Users/{PRINCIPAL}/iris"


def test_the_profile_of_the_connected_link_names_the_workspace(
    databricks: Databricks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = databricks.environment()
    file = tmp_path / "databrickscfg"
    file.write_text(f"[prod]\nhost={values['DATABRICKS_HOST']}\ntoken={values['DATABRICKS_TOKEN']}")
    for name in values:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    set_connected_link(Link(databricks_tracking_uri="databricks://prod"))

    assert experiment_path("iris") == f"/Users/{USER}/iris"


@pytest.mark.parametrize("path", ["/Repos/ana/code/iris", "/Users/ana/code/trials/iris"])
def test_a_git_folder_is_refused(databricks: Databricks, path: str) -> None:
    files = databricks.files.items
    files["/Users/ana"] = Item("DIRECTORY")
    files["/Users/ana/code"] = Item("REPO")
    files["/Users/ana/code/trials"] = Item("DIRECTORY")

    with pytest.raises(ExperimentPathError, match="must be outside of Git folders: got '/"):
        experiment_path(path)


def test_a_folder_of_another_user_that_may_not_be_made_is_named(databricks: Databricks) -> None:
    databricks.deny("POST .*mkdirs")

    with pytest.raises(ExperimentPathError, match="'/Users/bob/team' cannot be made: caller must"):
        experiment_path("iris", folder="team", user="bob")


def test_a_refused_token_is_an_error_and_not_the_user_of_the_machine(
    databricks: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "wrong")

    with pytest.raises(ServiceError, match="token"):
        experiment_path("iris")


def test_a_profile_without_settings_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate_from_machine(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "missing")

    with pytest.raises(ClusterError, match="Databricks must be set up"):
        experiment_path("iris")


def test_without_databricks_the_path_has_the_user_of_the_machine_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    isolate_from_machine(monkeypatch, tmp_path)

    with caplog.at_level(logging.WARNING):
        path = experiment_path("iris", folder="team")

    assert path == f"/Users/{getpass.getuser()}/team/iris"
    assert "Databricks is not set up here" in caplog.text


def test_with_databricks_connect_the_user_is_the_one_of_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolate_from_machine(monkeypatch, tmp_path)

    class RemoteSession(SignedInSession):
        __module__ = "pyspark.sql.connect.session"
        client = SimpleNamespace(host="adb-7405600000000001.1.azuredatabricks.net")

    monkeypatch.setitem(sys.modules, "pyspark", ModuleType("pyspark"))
    monkeypatch.setattr(module, "active_session", lambda: RemoteSession("bob@contoso.com"))

    assert experiment_path("iris") == "/Users/bob@contoso.com/iris"


@pytest.mark.parametrize("arguments", [{"folder": "team"}, {"user": "ana"}])
def test_a_whole_path_takes_neither_folder_nor_user(arguments: dict[str, str]) -> None:
    with pytest.raises(ExperimentPathError, match="leave folder and user out"):
        experiment_path("/Shared/iris", **arguments)


def test_the_name_in_azure_ml_is_public_beside_the_path() -> None:
    assert dbx_aml.experiment_name("/Users/ana@contoso.com/iris") == "iris-145f1174"
