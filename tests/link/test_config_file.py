"""A `config.json` that was only found: whose file counts, and what it may choose."""

import json
import logging
import os
from pathlib import Path

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import LinkError
from dbx_aml.link import config_file, link_layers
from dbx_aml.link.config_file import find_config, first_trusted_file
from tests.support.isolation import isolate_from_machine

NAMES = {
    "subscription_id": "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
    "resource_group": "rg-ml",
    "workspace_name": "mlw-team",
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file above the current folder."""
    isolate_from_machine(monkeypatch, tmp_path / "src")
    config_file._warn_once.cache_clear()
    cluster_files = (tmp_path / "cluster.json", tmp_path / "cluster of 2019.json")
    monkeypatch.setattr(link_layers, "CLUSTER_CONFIGS", cluster_files)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**NAMES, "dbx_aml": {"region": "westeurope"}}))
    file.chmod(0o644)
    return file


def choose_servers(file: Path, **settings: str) -> None:
    file.write_text(json.dumps({**NAMES, "dbx_aml": {"region": "westeurope", **settings}}))


@pytest.mark.parametrize(("mode", "counts"), [(0o644, True), (0o600, True), (0o646, False)])
def test_a_found_file_counts_if_others_may_not_write_it(
    config: Path, mode: int, counts: bool
) -> None:
    config.chmod(mode)
    assert find_config() == (config if counts else None)
    assert (Link.load().aml_workspace is not None) is counts
    # A file that the caller names counts.
    assert AmlWorkspace.from_config(config) == Link.load(config=config).aml_workspace


def test_a_group_may_write_the_file_if_it_is_the_owners_own(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.chmod(0o664)
    stat = config.stat()

    def set_ids(user_id: int, group_id: int) -> None:
        values = [*stat[:4], user_id, group_id, *stat[6:]]
        monkeypatch.setattr(Path, "stat", lambda *_, **__: os.stat_result(values))
        monkeypatch.setattr(Path, "lstat", lambda *_, **__: os.stat_result(values))
        monkeypatch.setattr(os, "geteuid", lambda: user_id)

    set_ids(1000, 1000)
    assert first_trusted_file([config]) == config
    set_ids(1000, 100)
    assert first_trusted_file([config]) is None


def test_a_file_of_another_user_does_not_count_and_one_warning_says_so(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner = config.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        # Files of root count for every user.
        assert find_config() == config
        os.chown(config, 4711, 4711)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with caplog.at_level(logging.WARNING):
        assert find_config() is None
        assert Link.load().mode == "databricks"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert f"{config} does not count: it belongs to user " in messages[0]
    assert "name it with --config or DBX_AML_CONFIG" in messages[0]
    monkeypatch.setenv("DBX_AML_CONFIG", str(config))
    assert Link.load().aml_workspace is not None


def test_the_next_file_counts_if_the_nearest_one_does_not(config: Path) -> None:
    nearest = Path("config.json").resolve()
    nearest.write_text(json.dumps({**NAMES, "workspace_name": "mlw-other"}))
    nearest.chmod(0o666)
    assert find_config() == config


def test_files_of_the_databricks_workspace_have_their_own_access_lists(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.chmod(0o777)
    monkeypatch.setattr(config_file, "_DATABRICKS_WORKSPACE", config.parent)
    assert find_config() == config


@pytest.mark.parametrize("name", ["databricks_tracking_uri", "aml_tracking_uri"])
@pytest.mark.parametrize(
    "uri",
    [
        "https://collector.example",
        "HTTP://collector.example:5000/",
        "http://localhost.collector.example",
        "http://127.0.0.1/@collector.example",
        "uc:https://collector.example",
    ],
)
def test_a_found_file_chooses_no_server_on_another_machine(
    config: Path, monkeypatch: pytest.MonkeyPatch, name: str, uri: str
) -> None:
    choose_servers(config, **{name: uri})
    with pytest.raises(LinkError) as caught:
        Link.load()
    message = str(caught.value)
    assert message.startswith(f"{name} must not be a server in a config.json that was only found")
    assert message.endswith("name the file with --config or DBX_AML_CONFIG if you trust it")
    assert "\n" not in message
    assert getattr(Link.load(config=config), name) == uri
    monkeypatch.setenv("DBX_AML_CONFIG", str(config))
    assert getattr(Link.load(), name) == uri


@pytest.mark.parametrize("name", ["databricks_tracking_uri", "aml_tracking_uri"])
@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1@collector.example/",
        "http://127.0.0.1:5000@collector.example/",
        "http://collector.example\\@127.0.0.1/",
    ],
)
def test_a_server_with_a_login_is_refused_also_in_a_file_that_was_named(
    config: Path, name: str, uri: str
) -> None:
    choose_servers(config, **{name: uri})
    for file in (None, config):
        with pytest.raises(LinkError, match=rf"must hold no secret: got one in '{name}'"):
            Link.load(config=file)


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:5000", "http://localhost:5000/", "http://[::1]", "sqlite:///mlflow.db"],
)
def test_a_found_file_may_choose_a_server_on_this_machine(config: Path, uri: str) -> None:
    choose_servers(config, databricks_tracking_uri=uri)
    assert Link.load().databricks_tracking_uri == uri


def test_the_file_of_the_cluster_chooses_any_server(config: Path) -> None:
    choose_servers(link_layers.CLUSTER_CONFIGS[0], databricks_tracking_uri="https://mlflow.contoso")
    assert Link.load().databricks_tracking_uri == "https://mlflow.contoso"


def test_no_file_can_allow_a_host(config: Path) -> None:
    choose_servers(config, allowed_hosts="collector.example")
    with pytest.raises(LinkError, match="must have known settings"):
        Link.load(config=config)
