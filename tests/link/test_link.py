"""The settings of a link: their origins, the refused ones, and the file that stores them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import LinkError, WorkspaceError
from dbx_aml.link import link_layers
from dbx_aml.link.config_file import refuse_secrets
from dbx_aml.link.link_layers import conflicting_values
from dbx_aml.link.secret_reference import SecretRef

SUBSCRIPTION = "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml"
    "/providers/Microsoft.MachineLearningServices/workspaces/mlw-team"
)
URI = f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{SCOPE}"
LEGACY = f"adbazureml://westeurope.experiments.azureml.net/history/v1.0{SCOPE}"
NAMES = {
    "subscription_id": SUBSCRIPTION,
    "resource_group": "rg-ml",
    "workspace_name": "mlw-team",
}
WORKSPACE = AmlWorkspace(**NAMES, region="westeurope")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove this machine's variables, and work in an empty folder."""
    for name in list(os.environ):
        if name.startswith(("DBX_AML_", "MLFLOW_", "DATABRICKS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        link_layers, "CLUSTER_CONFIGS", (tmp_path / "c1.json", tmp_path / "c2.json")
    )


def written(file: Path, **content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_without_anything_mlflow_is_databricks_and_unity_catalog() -> None:
    link = Link.load()
    assert (link.mode, link.tracking_uri, link.registry_uri) == (
        "databricks", "databricks", "databricks-uc",
    )  # fmt: skip
    assert link.origins == {"mode": "default"}
    assert not link.calls_azure_ml


def test_an_argument_goes_before_a_variable_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = written(
        tmp_path / "config.json",
        **NAMES,
        dbx_aml={
            "mode": "dual",
            "experiment": "of-file",
            "retry_timeout_s": 7,
            "region": "westeurope",
        },
    )
    monkeypatch.setenv("DBX_AML_EXPERIMENT", "of-variable")
    monkeypatch.setenv("DBX_AML_MODE", "databricks")
    link = Link.load(mode="aml", experiment=None)
    assert link == Link(
        mode="aml",
        experiment="of-variable",
        retry_timeout_s=7.0,
        aml_workspace=WORKSPACE,
        registry="aml",
    )
    assert link.origins["mode"] == "argument"
    assert link.origins["experiment"] == "DBX_AML_EXPERIMENT"
    assert {link.origins[name] for name in (*NAMES, "region", "retry_timeout_s")} == {str(file)}


def test_zero_seconds_is_a_value_and_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Link.load(retry_timeout_s=0).retry_timeout_s == 0
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "0")
    assert Link.load().retry_timeout_s == 0
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "soon")
    with pytest.raises(LinkError, match=r"RETRY_TIMEOUT_S must be a number of seconds.*'soon'"):
        Link.load()


@pytest.mark.parametrize("workspace", [URI, SCOPE, WORKSPACE, LEGACY])
def test_a_workspace_may_be_given_as_one_value(workspace: object) -> None:
    link = Link.load(aml_workspace=workspace, region="westeurope", mode="aml")
    assert link.aml_workspace == WORKSPACE
    assert link.tracking_uri == link.registry_uri == URI
    assert link.calls_azure_ml


def test_the_files_of_a_machine_are_looked_for_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def workspace_origin() -> str:
        return str(Link.load().origins.get("workspace_name"))

    here = written(tmp_path / ".azureml" / "config.json", **NAMES)
    assert workspace_origin() == str(here)
    microsoft = written(tmp_path / "c2.json", **NAMES)
    assert workspace_origin() == str(microsoft)
    ours = written(tmp_path / "c1.json", **NAMES)
    assert workspace_origin() == str(ours)
    named = written(tmp_path / "mine" / "config.json", **NAMES)
    monkeypatch.setenv("DBX_AML_CONFIG", str(named))
    assert workspace_origin() == str(named)
    given = written(tmp_path / "given.json", **NAMES)
    assert Link.load(config=given).origins["workspace_name"] == str(given)


def test_another_tools_config_json_in_the_current_folder_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", model_type="bert", pad_token="[PAD]")
    assert Link.load().mode == "databricks"
    with pytest.raises(LinkError, match="must name a workspace or a link: it has neither"):
        Link.load(config=file)


def test_microsofts_file_and_its_scheme_mean_dual(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(tmp_path / "c2.json", **NAMES)
    link = Link.load()
    assert link.mode == "dual"
    assert link.tracking_uri == "databricks"
    assert (
        link.origins["mode"] == f"{tmp_path / 'c2.json'} (as Microsoft's script of 2019 meant it)"
    )
    # As that script left a cluster: the file, and the URI that no MLflow knows any more.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", LEGACY)
    link = Link.load()
    assert link.mode == "dual"
    assert link.aml_tracking_uri == URI
    (tmp_path / "c2.json").unlink()
    link = Link.load()
    assert (link.mode, link.aml_workspace) == ("dual", WORKSPACE)
    assert link.origins["region"] == "MLFLOW_TRACKING_URI"
    assert Link.load(mode="aml").mode == "aml"


def test_a_workspace_alone_means_dual_on_databricks_and_aml_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(tmp_path / "config.json", **NAMES)
    assert Link.load().mode == "aml"
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    assert Link.load().mode == "dual"


def test_another_workspace_does_not_inherit_the_files_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written(tmp_path / "config.json", **NAMES, dbx_aml={"region": "westeurope"})
    monkeypatch.setenv("DBX_AML_WORKSPACE_NAME", "mlw-other")
    link = Link.load()
    assert link.aml_workspace == AmlWorkspace(**{**NAMES, "workspace_name": "mlw-other"})
    assert link.tracking_uri is None


def test_any_mlflow_uri_may_replace_either_service() -> None:
    link = Link(mode="dual", databricks_tracking_uri="sqlite:///a.db", aml_tracking_uri="http://b")
    assert (link.tracking_uri, link.registry_uri) == ("sqlite:///a.db", "sqlite:///a.db")
    link = replace(link, mode="aml", registry="aml")
    assert (link.tracking_uri, link.registry_uri, link.calls_azure_ml) == (
        "http://b", "http://b", False,
    )  # fmt: skip


def test_a_databricks_profile_is_kept_for_both_registries() -> None:
    link = Link(databricks_tracking_uri="databricks://team")
    assert (link.tracking_uri, link.registry_uri) == ("databricks://team", "databricks-uc://team")
    assert replace(link, registry="databricks").registry_uri == "databricks://team"


def test_tracking_in_azure_ml_and_registering_in_unity_catalog_are_apart() -> None:
    link = Link(mode="aml", registry="databricks-uc", aml_workspace=WORKSPACE)
    assert (link.tracking_uri, link.registry_uri) == (URI, "databricks-uc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "both"}, "mode must be one of ['databricks', 'aml', 'dual']: got 'both'"),
        ({"registry": "uc"}, "registry must be one of ['databricks-uc', 'databricks', 'aml']"),
        ({"mode": "aml"}, "link must name an Azure ML workspace: got mode 'aml'"),
        ({"registry": "aml"}, "link must name an Azure ML workspace: got mode 'databricks'"),
        ({"workspace_name": "mlw"}, "must be whole: missing ['subscription_id', 'resource_group']"),
        ({"retry_timeout_s": -1}, "retry_timeout_s must be a number of seconds, 0 or more: got -1"),
        ({"workspace": "x"}, "link must have known values: got ['workspace']; use ["),
        ({"client_secret": "a/b", "service_credential": "c"}, "link must name one credential"),
        ({"config": "no/such"}, "config must be a config.json or a folder with one: got 'no/such'"),
    ],
)
def test_contradicting_settings_are_refused_in_one_line(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(LinkError) as caught:
        Link.load(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_workspaces_in_one_layer_are_refused() -> None:
    with pytest.raises(WorkspaceError, match="must be that of workspace 'other-one'"):
        Link.load(aml_tracking_uri=URI, workspace_name="other-one")


def test_a_secret_is_a_reference_in_three_spellings() -> None:
    for value in ("ml/key-1", {"scope": "ml", "key": "key-1"}, SecretRef(scope="ml", key="key-1")):
        link = Link(client_secret=value)  # type: ignore[arg-type]
        assert link.client_secret == SecretRef(scope="ml", key="key-1")
    assert SecretRef.parse("env:TEAM_SECRET") == SecretRef(env="TEAM_SECRET")
    assert str(SecretRef.parse("env:TEAM_SECRET")) == "env:TEAM_SECRET"


@pytest.mark.parametrize(
    "value",
    ["Xyz8Q~literal.secret", "Xyz8Q~a/b", {"value": "Xyz8Q~a"}, {"env": "Xyz8Q~a"}, 7, "env:",
     {"scope": "Xyz8Q"}, {"scope": "Xyz8Q", "key": "k", "env": "E"}],
)  # fmt: skip
def test_a_secrets_text_is_refused_and_not_repeated(value: object) -> None:
    with pytest.raises(LinkError, match="secret must be a reference, not its text") as caught:
        Link.load(client_secret=value)
    assert "Xyz8Q" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "content",
    [
        {**NAMES, "dbx_aml": {"client_secret": "Xyz8Q~literal"}},
        {**NAMES, "client_secret": "Xyz8Q~literal"},
        {
            **NAMES,
            "dbx_aml": {"client_secret": {"scope": "a", "password": "Xyz8Q~literal"}},
        },
    ],
)
def test_a_file_with_a_secret_in_it_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    file = written(tmp_path / "config.json", **content)
    with pytest.raises(LinkError, match="must hold no secret: got text under ") as caught:
        Link.load()
    assert "Xyz8Q" not in str(caught.value)
    with pytest.raises(LinkError, match="must hold no secret"):
        Link(mode="databricks").save(file)


def test_a_files_unknown_settings_are_counted_with_what_is_like_them(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", **NAMES, dbx_aml={"modus": "aml", "hunter2": 1})
    message = re.escape(
        f"{file} must have known settings under 'dbx_aml': got 2 unknown, similar to ['mode']; use "
    )
    with pytest.raises(LinkError, match=message) as caught:
        Link.load()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "link",
    [
        Link(),
        Link(mode="dual", aml_workspace=WORKSPACE, experiment="/Shared/iris", retry_timeout_s=0),
        Link(mode="aml", registry="databricks", aml_workspace=AmlWorkspace(**NAMES)),
        Link(client_secret=SecretRef(scope="ml", key="k"), tenant_id="t", client_id="c"),
        Link(service_credential="aml", databricks_tracking_uri="databricks://team"),
        Link(mode="aml", aml_tracking_uri="sqlite:///x.db", aml_workspace=WORKSPACE),
        Link(
            mode="aml",
            aml_tracking_uri=URI.replace("westeurope.api", "e1.workspace.westeurope.api"),
        ),
    ],
)
def test_a_saved_link_is_loaded_again(tmp_path: Path, link: Link) -> None:
    file = link.save(tmp_path / "folder")
    assert file == tmp_path / "folder" / "config.json"
    assert Link.load(config=file) == Link.from_file(file) == link


def test_saving_keeps_the_other_keys_and_leaves_no_half_file(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", **NAMES, team="flights")
    Link(mode="aml", aml_workspace=WORKSPACE).save(file)
    content = json.loads(file.read_text())
    assert content == {
        **NAMES,
        "team": "flights",
        "dbx_aml": {"mode": "aml", "registry": "aml", "region": "westeurope"},
    }
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(LinkError, match="must be writable: "):
        Link().save("/proc/nowhere/config.json")


def test_a_link_from_a_file_does_not_depend_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DBX_AML_MODE", "dual")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", LEGACY)
    assert Link.from_file(None, experiment="e") == Link(experiment="e")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_azure_mls_own_client_reads_a_saved_link(tmp_path: Path) -> None:
    """The newest azure-ai-ml needs other versions than azureml-mlflow: it gets an environment."""
    Link(mode="dual", aml_workspace=WORKSPACE, experiment="iris").save(tmp_path / ".azureml")
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "azure-ai-ml"]
    subprocess.run(install, check=True)
    (tmp_path / "below" / "deep").mkdir(parents=True)
    code = """
        from azure.ai.ml import MLClient
        class NoCredential:
            def get_token(self, *scopes, **options):
                raise RuntimeError("no call is expected")
        client = MLClient.from_config(NoCredential())
        print(client.subscription_id, client.resource_group_name, client.workspace_name)
    """
    done = subprocess.run(
        [str(python), "-c", "\n".join(line[8:] for line in code.splitlines())],
        cwd=tmp_path / "below" / "deep",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [SUBSCRIPTION, "rg-ml", "mlw-team"]


URI_WITH_PASSWORD = "https://ana:pa@s3cret@mlflow.example"


def test_the_text_of_a_link_has_no_password() -> None:
    link = Link(databricks_tracking_uri=URI_WITH_PASSWORD, experiment="iris")
    assert "experiment='iris'" in repr(link)
    assert "databricks_tracking_uri='https://***@mlflow.example'" in repr(link)
    assert link.databricks_tracking_uri == URI_WITH_PASSWORD, "MLflow needs it"


@pytest.mark.parametrize(
    "settings",
    [
        {"databricks_tracking_uri": URI_WITH_PASSWORD},
        {"aml_tracking_uri": "sqlite:///m.db?token=s3cret"},
        {"experiment": "dapi" + "0123456789abcdef" * 2},
    ],
)
def test_a_file_with_a_secret_is_neither_read_nor_written(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(LinkError, match=r"config\.json must hold no secret: got one in"):
        Link(**settings).save(file)
    assert not file.exists()
    file.write_text(json.dumps({"dbx_aml": settings}))
    with pytest.raises(LinkError, match=r"config\.json must hold no secret: got one in") as caught:
        Link.from_file(file)
    assert not set(settings.values()) & set(str(caught.value).split("'"))
    assert "s3cret" not in str(caught.value)


def test_a_file_of_references_must_not_hold_the_secret_itself() -> None:
    refuse_secrets({"dbx_aml": {"client_secret": {"scope": "ml", "key": "sp"}}}, "config.json")
    for content in ({"client_secret": "correct-horse"}, {"a": [{"token": "correct-horse"}]}):
        with pytest.raises(LinkError, match=r"config\.json must hold no secret") as caught:
            refuse_secrets(content, "config.json")
        assert "correct-horse" not in str(caught.value)


def test_a_saved_link_is_read_back_from_a_file_of_the_older_form(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", Scope=SCOPE.replace("mlw-team", "mlw-old"), Id=None)
    link = Link(mode="aml", aml_workspace=WORKSPACE)
    link.save(file)
    assert Link.from_file(file) == link
    assert json.loads(file.read_text()).keys() == {"Id", *NAMES, "dbx_aml"}


def test_capitals_make_no_other_workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"region": "chinaeast2", "cloud": "AzureChinaCloud"}
    file = written(tmp_path / "config.json", **NAMES, dbx_aml=settings)
    monkeypatch.setenv("DBX_AML_RESOURCE_GROUP", "RG-ML")
    workspace = Link.load(config=file).aml_workspace
    assert workspace == AmlWorkspace(**{**NAMES, "resource_group": "RG-ML"}, **settings)
    assert conflicting_values(file) == {}
    monkeypatch.setenv("DBX_AML_RESOURCE_GROUP", "rg-other")
    assert conflicting_values(file).keys() == {"resource_group"}
