"""The link of a call: it counts for that call, and for MLflow's threads at the same workspace."""

from concurrent.futures import ThreadPoolExecutor

from dbx_aml import AmlWorkspace, Link
from dbx_aml.link.connected_link import (
    connected_link,
    current_link,
    link_of_workspace,
    set_connected_link,
    use_link,
)


def link_to(workspace_name: str, client_id: str) -> Link:
    # Without a region the link knows no tracking URI.
    workspace = AmlWorkspace(
        subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
        resource_group="rg-ml",
        workspace_name=workspace_name,
    )
    return Link(aml_workspace=workspace, client_id=client_id)


def uri_of(workspace_name: str) -> str:
    workspace = link_to(workspace_name, "x").aml_workspace
    assert workspace is not None
    return f"azureml://westeurope.api.azureml.ms/mlflow/v2.0{workspace.arm_id.upper()}"


def test_the_link_of_a_call_counts_until_its_end_and_the_connected_one_otherwise() -> None:
    connected, own = link_to("mlw-team", "connected"), link_to("mlw-team", "own")
    set_connected_link(connected)
    with use_link(own):
        assert connected_link() is own
        assert current_link() is own
        assert link_of_workspace(uri_of("mlw-team")) is own
        with use_link(connected):
            assert connected_link() is connected
        assert connected_link() is own
    assert connected_link() is connected
    assert link_of_workspace(uri_of("mlw-team")) is connected


def test_another_thread_finds_the_link_of_a_call_for_its_workspace_alone() -> None:
    connected, own = link_to("mlw-other", "connected"), link_to("mlw-team", "own")
    set_connected_link(connected)
    with use_link(own), ThreadPoolExecutor(1) as pool:
        assert pool.submit(link_of_workspace, uri_of("mlw-team")).result() is own
        assert pool.submit(link_of_workspace, uri_of("mlw-other")).result() is connected
        assert pool.submit(connected_link).result() is connected
        assert link_of_workspace(uri_of("mlw-other")) is connected
    assert link_of_workspace(uri_of("mlw-team")) is connected
    set_connected_link(None)
    assert link_of_workspace(uri_of("mlw-team")) is None
