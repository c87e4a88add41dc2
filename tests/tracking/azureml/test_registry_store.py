"""Azure ML's model registry through our store: every source, aliases, versions from elsewhere."""

from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from azureml.mlflow._store.model_registry.model_registry import AzureMLflowModelRegistry
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import dbx_aml
from dbx_aml import register_model
from tests.support.azureml import AzureMl
from tests.support.azureml.plain_client import plain_registry
from tests.tracking.azureml.conftest import predict

pytestmark = pytest.mark.azureml

LogModel = Callable[..., Any]


def test_a_model_is_registered_from_every_uri_and_loaded(
    azureml_client: MlflowClient, log_model: LogModel
) -> None:
    mlflow.set_experiment("registry")
    with mlflow.start_run() as active_run:
        info = log_model()
    run_id = active_run.info.run_id
    folder = mlflow.artifacts.download_artifacts(info.model_uri)
    artifact_uri = f"{active_run.info.artifact_uri}/model"
    for uri in (f"runs:/{run_id}/model", info.model_uri, artifact_uri, f"file://{folder}"):
        mlflow.register_model(uri, "all")
    mlflow.register_model("models:/all/1", "copied")

    numbers = [("all", "1"), ("all", "2"), ("all", "3"), ("all", "4"), ("copied", "1")]
    versions = [azureml_client.get_model_version(name, number) for name, number in numbers]
    assert [predict(f"models:/{name}/{number}") for name, number in numbers] == [[2.0, 4.0]] * 5
    model_id = info.model_id
    assert [version.model_id for version in versions] == [model_id, model_id, None, None, model_id]
    assert [version.run_id == run_id for version in versions[:3]] == [True, True, False]
    assert versions[3].tags == {"dbx_aml.source_model_uri": f"file://{folder}"}
    assert all(not version.tags for version in (*versions[:3], versions[4]))
    assert '"all"' in mlflow.get_logged_model(model_id).tags["mlflow.modelVersions"]
    with pytest.raises(MlflowException, match="none"):
        mlflow.register_model(f"runs:/{run_id}/none", "all")


def test_a_run_tracked_elsewhere_is_registered_with_its_source(
    azureml: AzureMl, azureml_client: MlflowClient, mlflow_store: str, log_model: LogModel
) -> None:
    # MLflow keeps a store for each URI, and another test may have revoked the token of one.
    uri = f"{azureml.tracking_uri}?test=elsewhere"
    mlflow.set_registry_uri(uri)
    with mlflow.start_run() as active_run:
        info = log_model(registered_model_name="elsewhere")
    run_id = active_run.info.run_id
    mlflow.register_model(f"runs:/{run_id}/model", "elsewhere")

    registry = MlflowClient(uri, uri)
    for number in ("1", "2"):
        version = registry.get_model_version("elsewhere", number)
        assert (version.run_id or "", version.model_id) == ("", info.model_id)
        assert version.tags == {
            "dbx_aml.source_model_uri": f"models:/{info.model_id}",
            "dbx_aml.source_run_id": run_id,
        }
        assert predict(f"models:/elsewhere/{number}") == [2.0, 4.0]


def test_aliases_are_tags_on_versions(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: LogModel
) -> None:
    client = azureml_client
    mlflow.set_experiment("aliases")
    with mlflow.start_run():
        uri = log_model().model_uri
    for _ in range(3):
        mlflow.register_model(uri, "aliased")
    client.set_registered_model_alias("aliased", "champion", "1")
    client.set_registered_model_alias("aliased", "champion", "3")
    client.set_registered_model_alias("aliased", "first", "1")

    assert client.get_model_version_by_alias("aliased", "champion").version == "3"
    assert predict("models:/aliased@champion") == [2.0, 4.0]
    assert client.get_model_version("aliased", "1").aliases == ["first"]
    assert client.get_registered_model("aliased").aliases == {"champion": "3", "first": "1"}
    assert client.get_model_version("aliased", "3").tags == {}
    # The service has no aliases; each store asks it once.
    assert len(azureml.requests(path="registered-models/alias")) == 1

    client.delete_registered_model_alias("aliased", "champion")
    with pytest.raises(MlflowException, match="alias champion not found"):
        client.get_model_version_by_alias("aliased", "champion")
    with pytest.raises(MlflowException, match="not found"):
        client.get_model_version_by_alias("missing", "champion")
    with pytest.raises(MlflowException, match="9"):
        client.set_registered_model_alias("aliased", "champion", "9")
    plain_version = plain_registry(azureml.tracking_uri).get_model_version("aliased", "1")
    assert sorted(plain_version.tags) == [
        "dbx_aml.alias.first",
        "dbx_aml.create_id",
        "dbx_aml.logged_model_id",
    ]


def test_of_two_versions_with_one_alias_the_later_alias_counts(
    azureml_client: MlflowClient, log_model: LogModel
) -> None:
    client = azureml_client
    mlflow.set_experiment("aliases")
    with mlflow.start_run():
        uri = log_model().model_uri
    for day, number in (("02", "1"), ("01", "2")):
        mlflow.register_model(uri, "contested")
        # A program was killed after it set the new tag and before it removed the old tag.
        client.set_model_version_tag(
            "contested", number, "dbx_aml.alias.champion", f"2026-01-{day}T00:00:00.000000Z"
        )

    assert client.get_model_version_by_alias("contested", "champion").version == "1"
    client.set_registered_model_alias("contested", "champion", "2")
    assert client.get_model_version_by_alias("contested", "champion").version == "2"
    assert client.get_model_version("contested", "1").aliases == []


def test_a_refused_version_leaves_no_empty_model_and_an_accepted_version_has_its_lineage(
    azureml: AzureMl, azureml_client: MlflowClient, log_model: LogModel
) -> None:
    mlflow.set_experiment("registry")
    with mlflow.start_run() as active_run:
        log_model()
    uri = f"runs:/{active_run.info.run_id}/model"
    azureml.fault("status", status=400, path="model-versions/create")
    with pytest.raises(dbx_aml._common.errors.RegistryError, match=uri):
        register_model(uri, "refused")
    azureml.reset()
    assert azureml_client.search_registered_models("name = 'refused'") == []

    version = register_model(uri, "refused", alias="champion", tags={"team": "ö"})

    assert (version.version, version.status, version.aliases) == ("1", "READY", ["champion"])
    assert version.tags["team"] == "ö"
    assert version.tags["dbx_aml.source_run_id"] == active_run.info.run_id
    assert len(version.tags["dbx_aml.artifacts_sha256"]) == 64
    assert predict("models:/refused@champion") == [2.0, 4.0]


def test_a_reserved_alias_is_refused_and_latest_names_the_newest_version(
    azureml_client: MlflowClient, log_model: LogModel
) -> None:
    mlflow.set_experiment("aliases")
    with mlflow.start_run():
        uri = log_model().model_uri
    for _ in range(2):
        mlflow.register_model(uri, "reserved")

    for alias in ("latest", "LATEST", "v1"):
        with pytest.raises(MlflowException, match="is reserved"):
            azureml_client.set_registered_model_alias("reserved", alias, "1")

    assert azureml_client.get_registered_model("reserved").aliases == {}
    assert azureml_client.get_model_version_by_alias("reserved", "latest").version == "2"


def test_every_call_about_prompts_says_that_azure_ml_takes_none_and_leaves_nothing(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    client = azureml_client
    mlflow.set_experiment("prompts")
    calls: list[Callable[[], Any]] = [
        lambda: mlflow.genai.register_prompt(name="greeting", template="Hi {{x}}"),
        lambda: mlflow.genai.load_prompt("prompts:/greeting/1"),
        lambda: mlflow.genai.load_prompt("prompts:/greeting@best", allow_missing=True),
        lambda: mlflow.genai.search_prompts(),
        lambda: mlflow.genai.delete_prompt_alias("greeting", "best"),
        lambda: client.create_prompt("greeting"),
        lambda: client.create_prompt_version("greeting", "Hi"),
        lambda: client.get_prompt("greeting"),
        lambda: client.set_prompt_tag("greeting", "team", "risk"),
        lambda: client.set_prompt_version_tag("greeting", "1", "team", "risk"),
        lambda: client.delete_prompt("greeting"),
    ]

    for call in calls:
        with pytest.raises(MlflowException, match=r"^Azure ML takes no prompts: .*$"):
            call()

    assert {entry.method for entry in azureml.requests(path="registered-models")} == {"GET"}


@pytest.fixture
def two_models(azureml_client: MlflowClient, log_model: LogModel) -> MlflowClient:
    """A client of a registry with the models "found-a", two versions, and "found-b", one."""
    client = azureml_client
    mlflow.set_experiment("searches")
    with mlflow.start_run():
        uri = log_model().model_uri
    for name in ("found-a", "found-a", "found-b"):
        mlflow.register_model(uri, name)
    client.set_registered_model_alias("found-a", "champion", "1")
    client.set_registered_model_alias("found-b", "only", "1")
    client.set_registered_model_tag("found-a", "team", "risk")
    return client


FILTERS = [
    ("name LIKE 'found%'", ["found-a", "found-b"]),
    ("name ILIKE 'FOUND-%'", ["found-a", "found-b"]),
    ("name = 'found-b'", ["found-b"]),
    ("tags.team = 'risk'", ["found-a"]),
    ("name LIKE 'found%' AND tags.team != 'risk'", []),
    ("name LIKE 'found%' AND tags.`mlflow.prompt.is_prompt` = 'false'", ["found-a", "found-b"]),
    ("name LIKE 'found%' AND tags.`mlflow.prompt.is_prompt` = 'true'", []),
]


def test_registered_models_are_searched_with_their_aliases_and_without_internal_tags(
    azureml: AzureMl, two_models: MlflowClient
) -> None:
    for filter_string, names in FILTERS:
        found = two_models.search_registered_models(filter_string)
        assert [model.name for model in found] == names, filter_string
    assert {"found-a", "found-b"} <= {model.name for model in two_models.search_registered_models()}

    before = len(azureml.requests(path="model-versions/search"))
    a, b = two_models.search_registered_models("name LIKE 'found%'")
    # The answer has one version; a second request is only for the model with more versions.
    assert len(azureml.requests(path="model-versions/search")) == before + 1
    assert (a.aliases, b.aliases) == ({"champion": "1"}, {"only": "1"})
    shown = [version for model in (a, b) for version in model.latest_versions]
    assert [(version.version, version.aliases, version.tags) for version in shown] == [
        ("2", [], {}),
        ("1", ["only"], {}),
    ]
    changed = two_models.update_model_version("found-b", "1", "described")
    assert (changed.aliases, changed.tags) == (["only"], {})
    renewed = two_models.update_registered_model("found-b", "described")
    assert (renewed.aliases, renewed.latest_versions[0].tags) == ({"only": "1"}, {})


def test_a_filter_that_azure_ml_refuses_is_decided_here(
    two_models: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = AzureMLflowModelRegistry.search_registered_models

    def refuse_filters(self: Any, filter_string: str | None, *args: Any) -> Any:
        if filter_string:
            raise MlflowException("Currently unsupported filter string format")
        return search(self, filter_string, *args)

    monkeypatch.setattr(AzureMLflowModelRegistry, "search_registered_models", refuse_filters)

    for filter_string, names in FILTERS:
        found = two_models.search_registered_models(filter_string)
        assert [model.name for model in found] == names, filter_string
    pages, token = [], None
    for _ in range(2):
        page = two_models.search_registered_models("name LIKE 'found%'", 1, ["name DESC"], token)
        pages.append([model.name for model in page])
        token = page.token
    assert (pages, token) == ([["found-b"], ["found-a"]], None)
    with pytest.raises(MlflowException, match="Invalid clause"):
        two_models.search_registered_models("name = 'a' OR name = 'b'")
