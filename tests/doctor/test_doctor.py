"""`doctor`: each check fails for its own reason, with a fix; all are green on the stand-ins."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml import AmlWorkspace, Link
from dbx_aml._common.errors import ArgumentError, ModelUriError
from dbx_aml.cluster.node import marker
from dbx_aml.cluster.runtimes import RUNTIMES
from dbx_aml.doctor import machine, packages
from dbx_aml.doctor import run as diagnosis
from dbx_aml.doctor.check_result import SkippedError, ok
from dbx_aml.doctor.checks import Case
from dbx_aml.doctor.run import Report, Result
from dbx_aml.local import java as jvm
from dbx_aml.tracking import connect as connecting
from tests.support.alone import leave_alone
from tests.support.azureml import EVERYTHING, RUNS_WRITE, AzureMl
from tests.support.databricks import TOKEN, USER, Databricks

Look = Callable[..., Result]
MODEL = "models:/main.flights.delay/3"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leave_alone(monkeypatch, tmp_path / "here")


@pytest.fixture
def look() -> Look:
    """One check alone, with whatever is set up."""

    def one(name: str, link: Link | None = None, **more: str) -> Result:
        case = Case(link=link or Link.load(), end=time.monotonic() + 5, **more)
        return diagnosis._looked(name, diagnosis.CHECKS[name], case)

    return one


@pytest.fixture
def aml(azureml: AzureMl, monkeypatch: pytest.MonkeyPatch) -> AzureMl:
    """The link leads to the stand-in of Azure ML alone."""
    for variable, value in azureml.environment().items():
        monkeypatch.setenv(variable, value)
    Link(mode="aml", aml_workspace=AmlWorkspace.from_tracking_uri(azureml.tracking_uri)).save(".")
    return azureml


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let packages seem to be installed in other versions, as `importlib.metadata` sees them."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def one(**versions: str) -> None:
        for name, version in versions.items():
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir()
            head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            (info / "METADATA").write_text(head)

    return one


def by_name(report: Report) -> dict[str, Result]:
    return {one.check: one for one in report.results}


# What is installed.


def test_here_is_no_runtime_and_no_init_script(look: Look) -> None:
    assert look("runtime").said.startswith("local: Python 3.")
    assert look("init script").state == "skipped"


def test_a_runtime_with_its_own_packages_is_good_and_a_changed_one_is_told(
    look: Look, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.x-scala2.13")
    monkeypatch.setattr(machine, "_PYTHON", "3.12")
    versions = {**RUNTIMES["18"].packages, "databricks-sdk": "0.67.0"}
    install(**{name.replace("-", "_"): version for name, version in versions.items()})
    found = look("runtime")
    assert (found.state, found.said) == (
        "ok",
        "Databricks Runtime 18 LTS, with the packages that it brings",
    )
    assert look("Spark").said == "the runtime's: Spark 4.1.0"
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    found = look("runtime")
    assert found.state == "warning"
    assert "pyarrow 21.0.0, listed 19.0.1" in found.said
    assert "restart the cluster" in found.fix
    monkeypatch.setattr(machine, "_PYTHON", "3.13")
    assert "Python 3.13, listed 3.12" in look("runtime").said


def test_an_unknown_runtime_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.2")
    found = look("runtime")
    assert (found.state, "16.2" in found.said, "17.3 LTS" in found.fix) == ("warning", True, True)


def test_the_marker_of_the_init_script_is_told(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "status.json"
    monkeypatch.setattr(marker, "MARKER_PATH", file)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    found = look("init script")
    assert (found.state, found.said[:23]) == ("warning", "it has not run on this ")
    assert found.fix.startswith("dbx-aml cluster attach")
    for state, expected, said in (
        ("ok", "ok", "done at 2026-11-24T22:05:09+00:00, from index; it added dbx-aml 0.1.0"),
        ("started", "warning", "it began at 2026-11-24T22:05:09+00:00 and has not ended"),
    ):
        done = marker.Marker(
            state=state,
            time="2026-11-24T22:05:09+00:00",
            source="index",
            installed={"dbx-aml": "0.1.0"},
        )
        file.write_text(done.to_json())
        found = look("init script")
        assert (found.state, found.said[: len(said)]) == (expected, said)
    done = marker.Marker(state="failed", reason="index must answer: got 503; restart the cluster")
    file.write_text(done.to_json())
    found = look("init script")
    assert (found.state, found.said, found.fix) == (
        "failed",
        "index must answer: got 503",
        "restart the cluster",
    )
    monkeypatch.setenv("DATABRICKS_ENV_VERSION", "4")
    file.unlink()
    assert look("init script").state == "skipped"


def test_a_full_disk_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look("disk").state == "ok"
    monkeypatch.setattr(machine, "_SCARCE_GIB", 1e9)
    assert look("disk").state == "warning"
    monkeypatch.setattr(machine, "_NONE_GIB", 1e9)
    found = look("disk")
    assert (found.state, found.fix) == ("failed", "free some, or set TMPDIR to a larger disk")


def test_a_missing_java_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look("Spark").state == "ok"
    monkeypatch.setattr(jvm, "_JAVA_FOLDERS", ())
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = look("Spark")
    assert (found.state, "apt-get install openjdk-17" in found.fix) == ("warning", True)


def test_packages_that_are_too_old_or_overwrite_each_other_are_told(
    look: Look, install: Callable[..., None]
) -> None:
    assert look("packages").state == "ok"
    install(mlflow="3.14.0")
    found = look("packages")
    assert (found.state, "mlflow 3.14.0 and mlflow-skinny" in found.said) == ("warning", True)
    assert found.fix.startswith("pip install mlflow==3.14.0 mlflow-skinny==3.14.0")
    install(mlflow_skinny="2.11.4")
    found = look("packages")
    assert found.state == "failed"
    assert found.said == "mlflow-skinny<4,>=2.19 is required, 2.11.4 installed"
    assert found.fix == "pip install 'mlflow-skinny<4,>=2.19', then restart Python"


@pytest.mark.parametrize(
    ("versions", "state", "said"),
    [
        ({}, "ok", r"azureml-mlflow 1\.62\.0\.post6 fits with mlflow 3\.\d+\.\d+"),
        (
            {"azure_storage_blob": "12.29.0"},
            "ok",
            r".*; known to be harmless: azure-storage-blob 12\.29\.0 \(it asks for .*",
        ),
        (
            {"azure_storage_blob": "13.0.0"},
            "warning",
            ".*never tried so: azure-storage-blob<=12.27.1,>=12.5.0 is required, 13.0.0 installed",
        ),
        ({"mlflow_skinny": "3.18.0"}, "warning", ".*mlflow-skinny<=3.15.0 is required, 3.18.0 .*"),
        (
            {"azureml_mlflow": "1.22.0", "azure_storage_blob": "12.28.0"},
            "failed",
            "azureml-mlflow 1.22.0 does not fit, .* had to keep azure-storage-blob 12.28.0 has .*",
        ),
    ],
)
def test_the_plugins_own_limits_are_compared_with_what_is_installed(
    look: Look, install: Callable[..., None], versions: dict[str, str], state: str, said: str
) -> None:
    install(**versions)
    found = look("plugin")
    assert found.state == state
    assert re.fullmatch(said, found.said), found.said
    assert bool(found.fix) == (state != "ok")


def test_a_missing_plugin_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PLUGIN", "azureml-mlflow-is-not-here")
    assert look("plugin").state == "failed"
    assert look("stores").state == "skipped"


def test_whose_stores_mlflow_uses_is_told(
    look: Look, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking._tracking_service import utils

    assert look("stores").said.endswith("seen in this process")
    monkeypatch.setitem(utils._tracking_store_registry._registry, "azureml", print)
    assert (look("stores").state, look("stores").fix[:14]) == ("failed", "restart Python")
    install(dbx_aml="0.1.0")  # a folder on the path, without entry points
    found = look("stores")
    assert (found.state, "not this package's" in found.said) == ("failed", True)
    assert "pip install dbx-aml" in found.fix


# The link.


def test_a_setting_that_belongs_to_no_workspace_breaks_nothing(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_REGION", "westeurope")
    assert look("settings").said == "mode = databricks (default)"


def test_nothing_linked_is_one_warning_and_the_rest_is_skipped() -> None:
    report = dbx_aml.run_doctor()
    assert report.failed == []
    found = by_name(report)
    assert found["settings"].state == "warning"
    assert found["settings"].fix.startswith("dbx-aml link set")
    for name in ("token", "sign-in host", "Databricks credential", "clock"):
        assert found[name].state == "skipped"


def test_every_setting_is_told_with_its_origin_and_a_conflict_with_both(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = AmlWorkspace(
        subscription_id="8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42",
        resource_group="rg-ml",
        workspace_name="mlw-team",
        region="westeurope",
    )
    file = Link(
        mode="dual", aml_workspace=workspace, client_secret="ml/aml-secret", retry_timeout_s=60
    ).save(".")
    monkeypatch.setenv("DBX_AML_EXPERIMENT", "/Shared/iris")
    found = look("settings")
    assert found.state == "ok"
    lines = found.said.splitlines()
    for line in (
        "experiment = /Shared/iris (DBX_AML_EXPERIMENT)",
        f"mode = dual ({file.absolute()})",
        f"client_secret = ml/aml-secret ({file.absolute()})",
    ):
        assert line in lines
    monkeypatch.setenv("DBX_AML_CLIENT_SECRET", "ml/aml-secret")
    monkeypatch.setenv("DBX_AML_RETRY_TIMEOUT_S", "60")
    assert look("settings").state == "ok", "the same in other words is no conflict"
    monkeypatch.setenv("DBX_AML_MODE", "aml")
    found = look("settings")
    assert found.state == "warning"
    first = f"mode: aml (DBX_AML_MODE) counts, not dual ({file.absolute()})"
    assert found.said.splitlines()[0] == first
    assert found.fix == f"leave each to one of them: DBX_AML_MODE, {file.absolute()}"


def test_a_file_that_cannot_be_read_fails_and_the_rest_still_runs() -> None:
    Path("config.json").write_text("{")
    found = by_name(dbx_aml.run_doctor())
    assert found["settings"].state == "failed"
    assert found["settings"].said.endswith(
        "config.json must be a readable JSON object: it is no JSON"
    )
    assert found["settings"].fix == "write it anew"
    assert found["token"].said == "needs a link that can be read, see the check 'settings'"
    assert found["packages"].state == "ok"


def test_which_stores_are_in_force_and_who_set_them(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'x.db'}"
    link = Link(databricks_tracking_uri=uri)
    assert look("tracking", link).said.endswith(
        f"(MLflow's default); dbx_aml.connect() will set {uri}"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    found = look("tracking", link)
    assert found.state == "warning"
    assert found.said.startswith(
        f"http://other:5000 (MLFLOW_TRACKING_URI), but the link means {uri}"
    )
    assert look("registry", link).said.startswith("http://other:5000 (MLflow's default)")
    mlflow.set_tracking_uri("http://third:5000")
    mlflow.set_registry_uri(uri)
    assert look("tracking", link).said.startswith(
        "http://third:5000 (mlflow.set_tracking_uri), but"
    )
    assert look("registry", link).said == f"{uri} (mlflow.set_registry_uri)"
    with connecting.connect(link):
        assert look("tracking", link).said == f"{uri} (dbx_aml.connect)"
        assert look("registry", link).said == f"{uri} (dbx_aml.connect)"
        mlflow.set_tracking_uri("http://third:5000")
        assert "(mlflow.set_tracking_uri), but the link" in look("tracking", link).said


def test_a_command_that_has_no_mlflow_resolves_as_mlflow_would(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_tracking_service", "_model_registry"):
        monkeypatch.delitem(sys.modules, f"mlflow.tracking.{name}.utils", raising=False)
    assert look("tracking").said == "a store in this folder (MLflow's default)"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks://team")
    assert look("registry").said == "databricks-uc://team (MLflow's default)"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks")
    assert look("registry").said == "databricks (MLFLOW_REGISTRY_URI)"


def test_the_chosen_credential_is_told_with_its_reason(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(mode="aml", aml_tracking_uri="sqlite:///aml.db")
    found = look("credential", link)
    assert (found.state, "AZURE_CLIENT_SECRET" in found.fix) == ("warning", True)
    assert look("credential").state == "ok", "no Azure ML side, none needed"
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "Xyz8Q~the-secret-itself")
    found = look("credential", link)
    assert found.said == "service principal with a secret: AZURE_CLIENT_SECRET is set"


# Both services.


@pytest.mark.azureml
def test_all_is_green_against_both_stand_ins_and_nothing_is_created(
    databricks: Databricks, aml: AzureMl
) -> None:
    workspace = AmlWorkspace.from_tracking_uri(aml.tracking_uri)
    Link(mode="dual", aml_workspace=workspace, experiment="/Shared/iris").save(".")
    databricks.grants.models["main.flights.delay"] = "admin@contoso.com"
    databricks.grants.grant("function", "main.flights.delay", "account users", "EXECUTE")
    databricks.volumes.add("main.flights.models")
    databricks.grants.grant("volume", "main.flights.models", USER, "READ_VOLUME", "WRITE_VOLUME")
    model = Path("model")
    model.mkdir()
    (model / "requirements.txt").write_text("mlflow\n")
    report = dbx_aml.doctor(model_uri=str(model), volume="/Volumes/main/flights/models")
    assert [(one.check, one.said) for one in report.results if one.state == "failed"] == []
    assert [(one.check, one.said) for one in report.results if one.state == "warning"] == []
    found = by_name(report)
    assert {name for name, one in found.items() if one.state == "skipped"} == {
        "init script",
        "model in Unity Catalog",
        "cloud metadata",
    }
    assert found["actions"].said == (
        "may create runs, write artifacts, register models, deploy endpoints"
    )
    assert "mlwteam4207593168.blob.core.windows.net through proxy" in found["artifact host"].said
    assert found["experiment folder"].said == f"{USER} may write to folder /Shared"
    assert found["clock"].said.startswith("within 30 s of ")
    assert databricks.writes() == []
    # What several checks need is asked for once.
    assert len(databricks.requests(path="scim")) == 1
    assert [one.path[-5:] for one in aml.requests(path="/token")] == ["token"]
    assert len([one for one in aml.requests() if one.path.endswith("/workspaces/mlw-team")]) == 1
    posts = {one.path.rpartition("/")[2] for one in aml.requests() if one.method == "POST"}
    assert posts == {"token", "search"}


@pytest.mark.azureml
def test_a_wrong_secret_is_one_failure_and_what_needs_it_is_skipped(
    aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    report = dbx_aml.run_doctor()
    assert [one.check for one in report.failed] == ["token"]
    assert "AADSTS7000215: the client secret is wrong" in report.failed[0].said
    found = by_name(report)
    for name in ("workspace", "actions", "artifact host"):
        assert found[name].said == "needs what the check 'token' failed to get"
    assert found["tracking host"].state == "ok"
    assert "not-the-secret" not in f"{report}{report.as_json()}"


@pytest.mark.azureml
def test_a_workspace_that_does_not_exist_is_told(
    look: Look, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_WORKSPACE_NAME", "mlw-other")
    monkeypatch.setenv("DBX_AML_REGION", "westeurope")
    found = look("workspace")
    assert found.state == "failed"
    assert found.said.startswith("workspace 'mlw-other' must exist in resource group 'rg-ml'")
    assert found.fix == "compare with the workspace's page in the portal"


@pytest.mark.azureml
def test_the_callers_actions_are_looked_up_and_the_role_is_named(look: Look, aml: AzureMl) -> None:
    aml.deny("*/onlineEndpoints/*")
    found = look("actions")
    assert found.state == "warning", "the link deploys nothing"
    assert found.said == (
        "may not deploy endpoints; may create runs, write artifacts, register models"
    )
    aml.deny(RUNS_WRITE, "*/models/write")
    found = look("actions")
    assert found.state == "failed"
    assert (
        found.said == "may not create runs, register models; may write artifacts, deploy endpoints"
    )
    assert "the role 'AzureML Data Scientist' on workspace 'mlw-team'" in found.fix
    assert RUNS_WRITE in found.fix
    aml.deny(EVERYTHING)
    assert look("actions").said.startswith("may not create runs, write artifacts, register ")
    assert look("workspace").fix == "ask for the role 'AzureML Data Scientist'"


@pytest.mark.azureml
def test_a_certificate_that_is_not_trusted_names_the_variables(
    look: Look, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    found = look("management host")
    assert found.state == "failed"
    assert "its certificate is not trusted" in found.said
    assert "REQUESTS_CA_BUNDLE and SSL_CERT_FILE" in found.fix


@pytest.mark.azureml
def test_a_proxy_that_refuses_is_told_without_its_password(
    look: Look, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("HTTPS_PROXY", aml.proxy.replace("://", "://ana:p4ssw0rd@"))
    monkeypatch.setenv("DBX_AML_REGION", "northeurope")
    found = look("tracking host")
    assert found.state == "failed"
    port = aml.proxy.rpartition(":")[2]
    assert found.said.startswith(f"northeurope.api.azureml.ms through proxy 127.0.0.1:{port}: the ")
    assert found.fix == (
        "let the proxy pass northeurope.api.azureml.ms:443, or add the host to NO_PROXY"
    )
    assert "p4ssw0rd" not in found.said + found.fix


def test_a_name_that_cannot_be_resolved_and_a_closed_port_are_told(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "not-a-token")
    monkeypatch.setenv("DATABRICKS_HOST", "https://adb-1.2.azuredatabricks.invalid")
    found = look("Databricks host")
    assert found.state == "failed"
    assert "adb-1.2.azuredatabricks.invalid: its name cannot be resolved" in found.said
    assert "private DNS zone" in found.fix
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:9")
    found = look("Databricks host")
    assert found.state == "failed"
    assert found.said.startswith("127.0.0.1:9 at 127.0.0.1: ")
    assert found.fix == "open the network to 127.0.0.1:9, or set HTTPS_PROXY"


@pytest.mark.azureml
def test_the_cloud_metadata_matter_only_where_somebody_asks_for_them(
    look: Look, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("cloud metadata").state == "skipped"
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD")
    assert look("cloud metadata").state == "ok"
    aml.fault("drop", host="management")
    found = look("cloud metadata")
    assert (found.state, found.fix) == ("warning", "set AZUREML_CURRENT_CLOUD=AzureCloud")
    monkeypatch.setenv("ARM_CLOUD_METADATA_URL", "https://management.azure.com/metadata/endpoints")
    assert look("cloud metadata").state == "failed"


@pytest.mark.azureml
@pytest.mark.parametrize(("seconds", "state"), [(400, "failed"), (-60, "warning"), (0, "ok")])
def test_a_clock_that_is_off_is_told(aml: AzureMl, seconds: int, state: str) -> None:
    aml.clock_ahead(seconds)
    found = by_name(dbx_aml.run_doctor())["clock"]
    assert found.state == state
    if seconds:
        way = "behind" if seconds > 0 else "ahead of"
        told = re.match(rf"(\d+) s {way} ", found.said)
        assert told and abs(int(told[1]) - abs(seconds)) <= 3
        assert "timedatectl set-ntp true" in found.fix


# Databricks.


@pytest.fixture
def team(databricks: Databricks, monkeypatch: pytest.MonkeyPatch) -> Databricks:
    """The link leads to the stand-in of Databricks alone."""
    Link().save(".")
    return databricks


def test_who_the_caller_is_in_databricks(team: Databricks, look: Look) -> None:
    assert look("Databricks credential").said == f"{team.host}: DATABRICKS_TOKEN is set"
    assert look("Databricks user").said == f"{USER}, in users"
    assert look("Databricks host").state == "ok"


def test_a_wrong_token_is_one_failure(team: Databricks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-wrong")
    report = dbx_aml.run_doctor()
    assert [one.check for one in report.failed] == ["Databricks user"]
    assert "got 401 Credential was not sent" in report.failed[0].said
    found = by_name(report)["experiment folder"]
    assert found.said == "needs what the check 'Databricks user' failed to get"


def test_a_profile_of_the_sdk_is_used(
    team: Databricks, look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "databrickscfg"
    file.write_text(f"[team]\nhost = {team.host}\ntoken = {TOKEN}\n")
    monkeypatch.delenv("DATABRICKS_HOST")
    monkeypatch.delenv("DATABRICKS_TOKEN")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    link = Link(databricks_tracking_uri="databricks://team")
    assert look("Databricks credential", link).said == f"{team.host}: pat"
    assert look("Databricks user", link).state == "ok"
    found = look("Databricks credential", Link(databricks_tracking_uri="databricks://other"))
    assert found.state == "failed"
    assert found.fix == "set DATABRICKS_HOST and DATABRICKS_TOKEN, or run 'databricks auth login'"
    assert TOKEN not in found.said
    team.fault("black-hole")
    found = look("Databricks credential", link)
    assert re.search(r"got no answer from its host in \d\.\d s$", found.said)
    assert found.fix == "open the network to it, or set HTTPS_PROXY"


def test_where_an_experiment_may_be_written(team: Databricks, look: Look) -> None:
    assert look("experiment folder").said == f"{USER} may write to folder /Users/{USER}"
    assert look("experiment folder", Link(experiment="/Shared/iris")).state == "ok"
    found = look("experiment folder", Link(experiment="/Shared/no/iris"))
    assert (found.state, found.fix) == ("failed", "databricks workspace mkdirs /Shared/no")
    shared = str(team.files.items["/Shared"].object_id)
    team.permissions.let("directories", shared, "ml-team")
    found = look("experiment folder", Link(experiment="/Shared/iris"))
    assert (found.state, found.said) == ("failed", f"{USER} may not write to folder /Shared")
    assert found.fix == "ask for CAN EDIT on it, from one of admins, ml-team"
    known = {"experiment_id": "77", "name": "/Shared/iris", "lifecycle_stage": "active"}
    team.experiments.all["77"] = known
    team.permissions.own("experiments", "77", USER)
    found = look("experiment folder", Link(experiment="/Shared/iris"))
    assert found.said == f"{USER} may write to experiment /Shared/iris"
    team.deny("GET .*/permissions/experiments")
    found = look("experiment folder", Link(experiment="/Shared/iris"))
    assert (found.state, "is not shown to them" in found.said) == ("warning", True)


def test_may_a_model_of_unity_catalog_be_loaded(team: Databricks, look: Look) -> None:
    found = look("model in Unity Catalog", model_uri=MODEL)
    assert found.state == "failed"
    assert "main.flights.delay is not there, or not shown to" in found.said
    assert found.fix.endswith("ask its owner for USE CATALOG, USE SCHEMA and EXECUTE")
    team.grants.models["main.flights.delay"] = "owner@contoso.com"
    team.grants.grant("function", "main.flights.delay", "others", "EXECUTE")
    found = look("model in Unity Catalog", model_uri=MODEL)
    assert (found.state, found.fix) == (
        "failed",
        "ask its owner, owner@contoso.com, for EXECUTE on it",
    )
    team.grants.models["main.flights.delay"] = USER
    assert look("model in Unity Catalog", model_uri=MODEL).state == "ok"
    assert look("model in Unity Catalog", model_uri="models:/delay/3").state == "skipped"


def test_may_a_volume_be_read_and_written(team: Databricks, look: Look) -> None:
    path = "/Volumes/main/flights/models/wheels"
    assert look("volume", volume=path).state == "failed"
    team.volumes.add("main.flights.models")
    team.grants.grant("volume", "main.flights.models", "users", "READ_VOLUME")
    found = look("volume", volume=path)
    assert found.said == f"{USER} lacks WRITE VOLUME on volume main.flights.models"
    team.grants.grant("volume", "main.flights.models", USER, "ALL_PRIVILEGES")
    found = look("volume", volume=path)
    assert found.said == f"{USER} has READ VOLUME and WRITE VOLUME on volume main.flights.models"


def test_who_may_not_see_all_grants_asks_for_their_own(team: Databricks, look: Look) -> None:
    team.grants.models["main.flights.delay"] = "owner@contoso.com"
    team.grants.grant("function", "main.flights.delay", USER, "EXECUTE")
    team.fault("status", status=403, path="effective-permissions", count=1)
    assert look("model in Unity Catalog", model_uri=MODEL).state == "ok"
    assert len(team.requests(path="effective-permissions")) == 2
    team.deny("effective-permissions")
    found = look("model in Unity Catalog", model_uri=MODEL)
    assert (found.state, "User does not have permission" in found.said) == ("failed", True)


# A model.


def test_a_models_requirements_are_compared_with_this_machine(
    look: Look, mlflow_store: str, tmp_path: Path
) -> None:
    import mlflow

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy==0.1\nmlflow\n")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "model")
    for uri in (str(folder), f"runs:/{run.info.run_id}/model"):
        found = look("model", Link(databricks_tracking_uri=mlflow_store), model_uri=uri)
        assert found.state == "warning"
        assert re.match(rf"{uri} was made with other packages: numpy==0.1: \S+ here$", found.said)
        assert "--env-manager virtualenv" in found.fix
    found = look("model", model_uri=f"runs:/{run.info.run_id}/other")
    assert (found.state, found.said[:23]) == ("failed", "model must be readable:")


# All of them.


def test_what_was_typed_wrong_is_an_error_before_anything_is_looked_at() -> None:
    with pytest.raises(ModelUriError, match="model URI must name a version or an alias"):
        dbx_aml.doctor(model_uri="models:/delay")
    with pytest.raises(ArgumentError, match="volume must be a path: got '/dbfs/x'"):
        dbx_aml.doctor(volume="/dbfs/x")


@pytest.mark.azureml
def test_checks_that_break_or_hang_do_not_hold_up_the_others(
    databricks: Databricks, aml: AzureMl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(case: Case) -> diagnosis.Finding:
        raise RuntimeError(f"something else {TOKEN}\nand more")

    monkeypatch.setenv("DBX_AML_REGISTRY", "databricks-uc")
    aml.fault("black-hole")
    databricks.fault("black-hole")
    monkeypatch.setitem(diagnosis.CHECKS, "broken", broken)
    monkeypatch.setitem(diagnosis.CHECKS, "hanging", lambda case: time.sleep(60) or ok(""))
    started = time.monotonic()
    report = dbx_aml.run_doctor()
    # Five, and as many again for a slow machine.
    assert time.monotonic() - started < 10
    found = by_name(report)
    assert (
        found["broken"].said == "the check itself broke: RuntimeError: something else *** and more"
    )
    assert found["hanging"].said == "no answer in 5 s"
    assert {one.check for one in report.failed} == {
        "broken", "hanging", "token", "sign-in host", "management host", "tracking host",
        "Databricks user", "Databricks host",
    }  # fmt: skip
    assert all(one.fix for one in report.failed)
    assert all(one.seconds <= 5 for one in report.results)
    assert found["packages"].state == "ok"
    assert found["workspace"].said == "needs what the check 'token' failed to get"


def test_who_waits_for_a_fact_that_never_comes_is_skipped() -> None:
    case = Case(link=Link(), end=time.monotonic() + 0.5)
    fact = case.fact("slow", lambda: time.sleep(60))
    with pytest.raises(SkippedError, match="needs what the check 'slow' failed to get"):
        fact.needed()


def test_a_report_is_worst_first_in_every_form() -> None:
    report = Report(
        Result(check=name, state=state, seconds=1.25, said=f"<{name}>", fix=fix)
        for name, state, fix in (
            ("a", "skipped", ""), ("b", "ok", ""), ("c", "failed", "type this"),
            ("d", "warning", ""), ("e", "ok", ""),
        )
    )  # fmt: skip
    assert [one.check for one in report.results] == ["c", "d", "b", "e", "a"]
    assert [one.check for one in report.failed] == ["c"]
    assert report.summary == "1 failed, 1 warning, 2 ok, 1 skipped"
    lines = str(report).splitlines()
    assert lines[0].startswith("failed ")
    assert "→ type this" in lines[1]
    html = report._repr_html_()
    assert "&lt;c&gt;" in html and "<b>→ type this</b>" in html
    assert report.as_json()["is_good"] is False
    assert report.as_json()["checks"][0] == {
        "check": "c", "state": "failed", "seconds": 1.25, "said": "<c>", "fix": "type this",
    }  # fmt: skip
