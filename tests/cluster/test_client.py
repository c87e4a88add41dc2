"""The Databricks client: signing in, finding a cluster, and errors on one line."""

import sys
import time

import pytest

from dbx_aml._common.errors import (
    ArgumentError,
    ClusterError,
    ServiceError,
    ServiceUnavailableError,
)
from dbx_aml.cluster import client as client_module
from dbx_aml.cluster.client import Client
from dbx_aml.cluster.clusters import find_cluster
from tests.support.databricks import USER, Databricks
from tests.support.http.scripted_server import ScriptedServer


def test_a_cluster_is_found_by_id_or_unique_name(workspace: Databricks, client: Client) -> None:
    for number in range(120):
        workspace.clusters.add(f"c{number}")
    cluster = workspace.clusters.add("last")
    assert find_cluster(client, "last").cluster_id == cluster.cluster_id
    assert find_cluster(client, cluster.cluster_id).name == "last"
    namesake = workspace.clusters.add("last")
    with pytest.raises(ClusterError, match="unique name: got 2 named 'last'") as caught:
        find_cluster(client, "last")
    assert cluster.cluster_id in str(caught.value)
    assert namesake.cluster_id in str(caught.value)
    for name in ("nobody", "1124-000000-abcdefgh"):
        with pytest.raises(ClusterError, match=f"must exist: got '{name}', which {USER}"):
            find_cluster(client, name)


def test_a_throttled_call_is_sent_again(workspace: Databricks, client: Client, team: str) -> None:
    workspace.fault("status", status=429, retry_after_s=0, path="clusters/get", count=1)
    assert find_cluster(client, team).name == "team"


def test_a_workspace_that_asks_to_wait_for_an_hour_is_one_error_at_once(
    workspace: Databricks, client: Client, team: str
) -> None:
    workspace.fault("status", status=429, retry_after_s=3600, path="clusters/get")
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match="429, which asks to wait 3600 s") as caught:
        find_cluster(client, team)
    assert time.monotonic() - started < 30
    assert str(caught.value).startswith("Databricks must answer when asked to ")


def test_a_workspace_that_drips_its_answer_is_left_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ScriptedServer()
    server.drip_s, server.chunks = 0.05, [b" "] * 2000
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-of-ana")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(client_module, "_SIGN_IN_TIMEOUT_S", 1.0)
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match="when asked to see who is signed in"):
        Client()
    assert time.monotonic() - started < 30
    server.stop()


def test_a_list_that_repeats_its_page_is_an_error_that_names_the_call(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = {"clusters": [{"cluster_name": "other"}], "next_page_token": "again"}
    calls: list[object] = []
    monkeypatch.setattr(client, "call", lambda *_, query, **__: calls.append(query) or page)
    with pytest.raises(ServiceError, match=r"pages of 2\.1/clusters/list must end"):
        find_cluster(client, "team")
    assert calls == [{"page_size": "100"}, {"page_size": "100", "page_token": "again"}]


@pytest.mark.parametrize("text", ["nan", "-1", "soon"])
def test_a_retry_timeout_that_is_no_number_is_one_line(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", text)
    with pytest.raises(ArgumentError, match=f"DBX_AML_RETRY_TIMEOUT_S must be .*'{text}'"):
        Client()


def test_half_a_second_to_retry_is_enough_for_a_healthy_workspace(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch, team: str
) -> None:
    for text in ("0.5", "0"):
        monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", text)
        assert find_cluster(Client(), team).name == "team"


def test_a_wrong_token_is_one_line_without_the_token(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    with pytest.raises(ServiceError, match="must accept the caller's token") as caught:
        Client()
    assert "dapi-wrong" not in str(caught.value)


def test_a_wrong_host_is_one_line_within_seconds(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr(client_module, "_SIGN_IN_TIMEOUT_S", 1)
    with pytest.raises(ServiceUnavailableError, match="when asked to see who is signed in"):
        Client()


def test_missing_settings_name_the_variables(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    with pytest.raises(ClusterError, match=r"must be set up: .*set DATABRICKS_HOST and DATA"):
        Client()


def test_a_missing_sdk_names_the_extra(
    workspace: Databricks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "databricks.sdk.core", None)
    with pytest.raises(ClusterError, match=r"pip install '\./dist/dbx_aml-.*whl\[cluster\]'"):
        Client()
