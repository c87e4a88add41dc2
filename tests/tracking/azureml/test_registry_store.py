"""Azure ML's model registry through our store: every source, aliases, versions from elsewhere."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

_MODEL = """
import pandas as pd
class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
frame = pd.DataFrame({"x": [1.0, 2.0]})
def predicted(uri):
    return mlflow.pyfunc.load_model(uri).predict(frame)["x"].tolist()
def log_model(**options):
    return mlflow.pyfunc.log_model(
        name="model", python_model=Doubles(), pip_requirements=[], **options)
"""


def _ours(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return found_by(azureml, _MODEL + dedent(code), *arguments, plain=False, **options)


def test_every_uri_of_a_model_is_registered_and_loaded(azureml: AzureMl, tmp_path: Path) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("registry")
        with mlflow.start_run() as run:
            info = log_model()
        mlflow.pyfunc.save_model(sys.argv[2], python_model=Doubles(), pip_requirements=[])
        uris = [f"runs:/{run.info.run_id}/model", info.model_uri,
                run.info.artifact_uri + "/model", "file://" + sys.argv[2]]
        for uri in uris:
            mlflow.register_model(uri, "all")
        mlflow.register_model("models:/all/1", "copied")
        versions = [client.get_model_version("all", str(n)) for n in range(1, 5)]
        versions.append(client.get_model_version("copied", "1"))
        found["predicted"] = [predicted(f"models:/{v.name}/{v.version}") for v in versions]
        found["models"] = [v.model_id == info.model_id for v in versions]
        found["runs"] = [v.run_id == run.info.run_id for v in versions]
        found["tags"] = [v.tags for v in versions]
        found["linked"] = mlflow.get_logged_model(info.model_id).tags["mlflow.modelVersions"]
        found["missing"] = error_of(
            mlflow.register_model, f"runs:/{run.info.run_id}/none", "all")[1]
        """,
        str(tmp_path / "saved"),
    )

    assert found["predicted"] == [[2.0, 4.0]] * 5
    assert found["models"] == [True, True, False, False, True]
    assert found["runs"] == [True, True, False, False, False]
    assert found["tags"][3] == {"dbx_aml.source_model_uri": f"file://{tmp_path / 'saved'}"}
    assert found["linked"] == (
        '[{"name": "all", "version": "2"}, {"name": "copied", "version": "1"}]'
    )
    assert "Unable to find a logged_model with artifact_path none" in found["missing"]


def test_a_run_tracked_elsewhere_is_registered_with_its_source(
    azureml: AzureMl, tmp_path: Path
) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_tracking_uri("sqlite:///" + sys.argv[2] + "/other.db")
        mlflow.set_registry_uri(sys.argv[1])
        os.chdir(sys.argv[2])
        with mlflow.start_run() as run:
            info = log_model(registered_model_name="elsewhere")
        mlflow.register_model(f"runs:/{run.info.run_id}/model", "elsewhere")
        found["ids"] = [run.info.run_id, info.model_id]
        registry = MlflowClient(sys.argv[1], sys.argv[1])
        versions = [registry.get_model_version("elsewhere", v) for v in "12"]
        found["versions"] = [[v.run_id or "", v.model_id, v.tags] for v in versions]
        found["predicted"] = [predicted(f"models:/elsewhere/{v}") for v in "12"]
        """,
        str(tmp_path),
    )
    run_id, model_id = found["ids"]

    assert found["predicted"] == [[2.0, 4.0]] * 2
    source = {"dbx_aml.source_model_uri": f"models:/{model_id}", "dbx_aml.source_run_id": run_id}
    assert found["versions"] == [["", model_id, source], ["", model_id, source]]


_ALIASES = """
mlflow.set_experiment("aliases")
name = sys.argv[2]
with mlflow.start_run():
    for _ in range(3):
        log_model(registered_model_name=name)
set_alias, by_alias = client.set_registered_model_alias, client.get_model_version_by_alias
set_alias(name, "champion", "1")
set_alias(name, "champion", "3")
set_alias(name, "first", "1")
found["champion"] = str(by_alias(name, "champion").version)
found["predicted"] = predicted(f"models:/{name}@champion")
found["of version"] = sorted(client.get_model_version(name, "1").aliases)
found["of model"] = {a: str(v) for a, v in client.get_registered_model(name).aliases.items()}
found["tags"] = client.get_model_version(name, "3").tags
client.delete_registered_model_alias(name, "champion")
found["gone"] = error_of(by_alias, name, "champion")[1]
found["no model"] = error_of(by_alias, "nobody", "champion")[1]
found["no version"] = error_of(set_alias, name, "champion", "9")[1][:40]
"""


def test_aliases_are_tags_on_versions(azureml: AzureMl) -> None:
    found = _ours(azureml, _ALIASES, "aliased")
    tags = found_by(azureml, "found['1'] = client.get_model_version('aliased', '1').tags")

    assert found["champion"] == "3"
    assert found["predicted"] == [2.0, 4.0]
    assert found["of version"] == ["first"]
    assert found["of model"] == {"champion": "3", "first": "1"}
    assert found["tags"] == {}
    assert "alias champion not found" in found["gone"]
    assert "not found" in found["no model"]
    assert found["no version"] != ""
    assert sorted(tags["1"]) == [
        "dbx_aml.alias.first",
        "dbx_aml.create_id",
        "dbx_aml.logged_model_id",
    ]
    # The service was asked first, once by each client.
    assert len(azureml.requests(path="registered-models/alias")) == 1


def test_of_two_versions_with_one_alias_the_newer_alias_counts(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("aliases")
        with mlflow.start_run():
            for _ in range(2):
                log_model(registered_model_name="contested")
        # Somebody was killed between setting the new one and removing the old one.
        client.set_model_version_tag(
            "contested", "1", "dbx_aml.alias.champion", "2026-01-02T00:00:00.000000Z")
        client.set_model_version_tag(
            "contested", "2", "dbx_aml.alias.champion", "2026-01-01T00:00:00.000000Z")
        found["one"] = str(client.get_model_version_by_alias("contested", "champion").version)
        client.set_registered_model_alias("contested", "champion", "2")
        found["two"] = str(client.get_model_version_by_alias("contested", "champion").version)
        found["of 1"] = client.get_model_version("contested", "1").aliases
        """,
    )

    assert found == {"one": "1", "two": "2", "of 1": []}


def test_a_refused_version_leaves_no_empty_model_and_a_taken_one_says_all(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        import dbx_aml
        mlflow.set_experiment("registry")
        with mlflow.start_run() as run:
            log_model()
        uri = f"runs:/{run.info.run_id}/model"
        fault("status", status=400, path="model-versions/create")
        found["error"] = error_of(dbx_aml.register_model, uri, "refused")[:2]
        admin("reset")
        found["left"] = [m.name for m in client.search_registered_models("name = 'refused'")]
        version = dbx_aml.register_model(uri, "refused", alias="champion", tags={"team": "ö"})
        found["version"] = [str(version.version), version.status, version.aliases]
        found["tags"] = version.tags
        found["run_id"] = run.info.run_id
        found["predicted"] = predicted("models:/refused@champion")
        """,
    )

    assert found["error"][0] == "RegistryError"
    assert "model must be registrable: got 'runs:/" in found["error"][1]
    assert found["left"] == []
    assert found["version"] == ["1", "READY", ["champion"]]
    assert found["tags"]["team"] == "ö"
    assert found["tags"]["dbx_aml.source_run_id"] == found["run_id"]
    assert len(found["tags"]["dbx_aml.artifacts_sha256"]) == 64
    assert found["predicted"] == [2.0, 4.0]
