"""An Azure ML workspace by every name that Azure has for it, and the files that name it."""

import json
from pathlib import Path

import pytest

from dbx_aml import AmlWorkspace
from dbx_aml._common.errors import LinkError, UntrustedHostError, WorkspaceError

SUBSCRIPTION = "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml"
    "/providers/Microsoft.MachineLearningServices/workspaces/mlw-team"
)
URI = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{SCOPE}"
PRIVATE = f"azureml://e1d0.workspace.westeurope.api.azureml.ms/mlflow/v1.0{SCOPE}"
NAMES = {
    "subscription_id": SUBSCRIPTION,
    "resource_group": "rg-ml",
    "workspace_name": "mlw-team",
}


@pytest.fixture
def workspace() -> AmlWorkspace:
    return AmlWorkspace(**NAMES, region="westeurope")


def test_the_tracking_uri_follows_from_the_region(workspace: AmlWorkspace) -> None:
    assert workspace.tracking_uri == URI
    unknown = AmlWorkspace(**NAMES)
    assert unknown.known_tracking_uri is None
    with pytest.raises(WorkspaceError, match="neither region nor tracking_uri; add region="):
        _ = unknown.tracking_uri
    assert "mlw-team" in repr(unknown)


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        URI.replace("v1.0", "v2.0"),
        URI.replace("resourceGroups", "resourcegroups") + "/",
        URI + "?is-remote=True",
        f"azureml://westeurope.api.azureml.ms/history/v1.0{SCOPE}",
        f"adbazureml://westeurope.experiments.azureml.net/history/v1.0{SCOPE}",
        f"adbazureml://westeurope.api.azureml.ms/history/v1.0{SCOPE}",
    ],
)
def test_every_form_of_a_tracking_uri_is_the_same_workspace(
    workspace: AmlWorkspace, uri: str
) -> None:
    assert AmlWorkspace.from_tracking_uri(uri) == workspace


def test_a_workspace_behind_a_private_link_keeps_its_own_host(
    workspace: AmlWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = AmlWorkspace.from_tracking_uri(PRIVATE)
    assert private.tracking_uri == PRIVATE
    assert private.region == "westeurope"
    assert private != workspace
    monkeypatch.setenv("DBX_AML_ALLOWED_HOSTS", "ml.contoso.internal")
    other = PRIVATE.replace("e1d0.workspace.westeurope.api.azureml.ms", "ml.contoso.internal")
    assert AmlWorkspace.from_tracking_uri(other).tracking_uri == other
    assert AmlWorkspace.from_tracking_uri(other, cloud="AzureUSGovernment").hosts.arm == (
        "management.usgovcloudapi.net"
    )


@pytest.mark.parametrize(
    ("cloud", "region", "host", "studio"),
    [
        ("AzureCloud", "westeurope", "westeurope.api.azureml.ms", "ml.azure.com"),
        ("AzureChinaCloud", "chinaeast2", "chinaeast2.api.ml.azure.cn", "studio.ml.azure.cn"),
        ("AzureUSGovernment", "usgovarizona", "usgovarizona.api.ml.azure.us", "ml.azure.us"),
    ],
)
def test_each_cloud_has_its_own_hosts_and_is_known_by_them(
    cloud: str, region: str, host: str, studio: str
) -> None:
    found = AmlWorkspace(**NAMES, region=region, cloud=cloud)
    assert found.tracking_uri == f"azureml://{host}/mlflow/v1.0{SCOPE}"
    assert AmlWorkspace.from_tracking_uri(str(found.tracking_uri)) == found
    assert found.studio_url == f"https://{studio}/?wsid={SCOPE}"
    assert found.run_url("0b9a-1") == f"https://{studio}/runs/0b9a-1?wsid={SCOPE}"


@pytest.mark.parametrize("host", ["collector.example", "westeurope.api.azureml.ms.evil.example"])
def test_a_workspace_at_a_host_that_is_not_azures_is_refused(tmp_path: Path, host: str) -> None:
    uri = URI.replace("westeurope.api.azureml.ms", host)
    (tmp_path / "config.json").write_text(
        json.dumps({**NAMES, "dbx_aml": {"aml_tracking_uri": uri}})
    )
    for create in (
        lambda: AmlWorkspace.from_tracking_uri(uri),
        lambda: AmlWorkspace(**NAMES, tracking_uri=uri),
        lambda: AmlWorkspace.from_config(tmp_path),
    ):
        with pytest.raises(UntrustedHostError, match=f"one of Azure ML's: got '{host}'; use"):
            create()


def test_it_goes_to_an_arm_id_and_back(workspace: AmlWorkspace) -> None:
    assert workspace.arm_id == SCOPE
    assert AmlWorkspace.from_arm_id(SCOPE, region="westeurope") == workspace
    with pytest.raises(WorkspaceError, match="ARM id must be a workspace's: got '/subscriptions/"):
        AmlWorkspace.from_arm_id(SCOPE.replace("workspaces", "registries"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"subscription_id": "mine"}, "subscription_id must be valid: got 'mine'; use a GUID"),
        ({"resource_group": "/rg"}, "resource_group must be valid: got '/rg'; use its bare name"),
        ({"resource_group": ""}, "resource_group must be valid: got ''"),
        ({"workspace_name": "ab"}, "workspace_name must be valid: got 'ab'; use 3 to 33 letters"),
        ({"workspace_name": None}, "workspace_name must be valid: got None"),
        ({"region": "West Europe"}, "region must be valid: got 'West Europe'; use for example"),
        ({"cloud": "Azure"}, "cloud must be one of Azure's: got 'Azure'; use one of"),
        ({"tracking_uri": "sqlite:///x"}, "must name a workspace: got 'sqlite:///x'; copy it"),
        ({"tracking_uri": URI, "workspace_name": "other"}, "must be that of workspace 'other'"),
        ({"tracking_uri": URI, "region": "northeurope"}, "must fit region 'northeurope'"),
        ({"tracking_uri": URI, "cloud": "AzureChinaCloud"}, "cloud 'AzureChinaCloud': got 'azur"),
    ],
)
def test_a_workspace_that_cannot_exist_is_refused_in_one_line(
    changed: dict[str, str], message: str
) -> None:
    with pytest.raises(WorkspaceError) as caught:
        AmlWorkspace(**{**NAMES, **changed})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        NAMES,
        {"Id": None, "Scope": SCOPE},
        # Azure ML's own tools prefer the scope too.
        {**NAMES, "workspace_name": "older", "Scope": SCOPE},
    ],
)
def test_config_json_of_the_portal_and_of_older_tools_is_read(
    tmp_path: Path, content: dict[str, str]
) -> None:
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert AmlWorkspace.from_config(tmp_path / "config.json") == AmlWorkspace(**NAMES)


def test_config_json_of_the_cluster_script_of_2019_is_read(tmp_path: Path) -> None:
    text = '{"subscription_id": "%s", "resource_group": "rg-ml", "workspace_name": "mlw-team"}\n'
    (tmp_path / "config.json").write_text(text % SUBSCRIPTION)
    assert AmlWorkspace.from_config(tmp_path) == AmlWorkspace(**NAMES)


def test_a_folder_is_looked_through_as_azure_ml_does(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml" / "config.json").write_text(json.dumps(NAMES))
    near = {**NAMES, "workspace_name": "mlw-near"}
    (deep / "config.json").write_text(json.dumps(near))
    assert AmlWorkspace.from_config(deep).workspace_name == "mlw-team"
    (tmp_path / ".azureml" / "config.json").unlink()
    assert AmlWorkspace.from_config(deep).workspace_name == "mlw-near"


@pytest.mark.parametrize("private", [False, True])
def test_a_written_workspace_is_read_back_equal(tmp_path: Path, private: bool) -> None:
    workspace = AmlWorkspace(
        **NAMES, region="westeurope", tracking_uri=PRIVATE if private else None
    )
    (tmp_path / "config.json").write_text(json.dumps(workspace.to_dict()))
    assert AmlWorkspace.from_config(tmp_path) == workspace
    assert set(workspace.to_dict()) == {*NAMES, "dbx_aml"}
    assert AmlWorkspace(**NAMES).to_dict() == NAMES


def test_a_file_that_names_no_workspace_is_said(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"subscription_id": "x"}')
    with pytest.raises(LinkError, match=r"missing \['resource_group', 'workspace_name'\]"):
        AmlWorkspace.from_config(file)
    file.write_text("{ 'secret-like text")
    with pytest.raises(LinkError, match="must be a readable JSON object: it is no JSON") as caught:
        AmlWorkspace.from_config(file)
    assert caught.value.__context__ is None
    file.write_text("[]")
    with pytest.raises(LinkError, match="it is a list"):
        AmlWorkspace.from_config(file)
