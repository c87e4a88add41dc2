"""A version is copied to another registry whole, once, and with its lineage."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

import dbx_aml
from dbx_aml._common.errors import ArgumentError, RegistryError
from dbx_aml.link.connected_link import use_link
from dbx_aml.link.link import Link
from dbx_aml.models.copy import copy_model_version
from dbx_aml.models.model_files import locate_model
from dbx_aml.models.model_uri import ModelUri
from tests.models.conftest import file_hashes, register_in
from tests.support.azureml import AzureMl
from tests.support.databricks import Databricks

pytestmark = pytest.mark.azureml

ROOT = Path(__file__).parents[2]


def files_of(client: MlflowClient, model_uri: str, folder: Path) -> dict[str, str]:
    """Return the hashes of a version's files as its registry returns them."""
    location = locate_model(ModelUri.parse(model_uri), client)
    return file_hashes(location.download(folder))


def test_a_version_of_unity_catalog_is_whole_in_azure_ml(
    uc_version: str,
    aml_registry: MlflowClient,
    uc_registry: MlflowClient,
    saved_model: Path,
    tmp_path: Path,
    databricks: Databricks,
) -> None:
    copy = dbx_aml.copy_model_version(uc_version, with_aliases=True)

    assert (copy.model_uri, copy.is_new) == ("models:/main-ml-delay/1", True)
    assert copy.source_model_uri == uc_version
    assert files_of(aml_registry, copy.model_uri, tmp_path / "copy") == file_hashes(saved_model)
    version = aml_registry.get_model_version("main-ml-delay", "1")
    assert version.description == "Delay in minutes"
    assert version.aliases == ["champion"]
    assert (version.tags["team"], version.tags["stage"]) == ("größe", "test")
    host = databricks.host.removeprefix("http://")
    assert version.tags["dbx_aml.source_registry"] == f"databricks-uc://{host}"
    assert version.tags["dbx_aml.source_model_uri"] == "models:/main.ml.delay/1"
    assert version.tags["dbx_aml.artifacts_sha256"] == copy.artifacts_sha256
    assert "inputs" in version.tags["dbx_aml.signature"]
    source = uc_registry.get_model_version("main.ml.delay", "1")
    (copied_to,) = [text for key, text in source.tags.items() if key.startswith("dbx_aml_copy_")]
    assert copied_to == f"{copy.registry} models:/main-ml-delay/1"
    assert source.tags["dbx_aml_artifacts_sha256"] == copy.artifacts_sha256


def test_a_second_call_finds_the_copy_without_reading_a_file(
    uc_version: str, aml_registry: MlflowClient, databricks: Databricks
) -> None:
    first = copy_model_version(uc_version)
    databricks.forget_requests()
    second = copy_model_version("models:/main.ml.delay@champion")
    assert (second.model_uri, second.is_new) == (first.model_uri, False)
    assert not databricks.requests(path="/fs/files/")
    assert len(aml_registry.search_model_versions("name='main-ml-delay'")) == 1


def test_a_version_of_azure_ml_is_whole_in_unity_catalog(
    aml_registry: MlflowClient, uc_registry: MlflowClient, saved_model: Path, tmp_path: Path
) -> None:
    source = register_in(aml_registry, "delay", saved_model)
    aml_registry.set_model_version_tag("delay", "1", "team.owner", "ana")
    copy = copy_model_version(source, "main.ml.delay", with_aliases=True)
    again = copy_model_version(source, "main.ml.delay")

    assert [(c.model_uri, c.is_new) for c in (copy, again)] == [
        ("models:/main.ml.delay/1", True),
        ("models:/main.ml.delay/1", False),
    ]
    assert files_of(uc_registry, copy.model_uri, tmp_path / "copy") == file_hashes(saved_model)
    version = uc_registry.get_model_version("main.ml.delay", "1")
    assert (version.description, version.aliases) == ("Delay in minutes", ["champion"])
    assert version.tags["team_owner"] == "ana"
    assert version.tags["dbx_aml_source_model_uri"] == "models:/delay/1"
    assert version.tags["dbx_aml_source_registry"].startswith("azureml:/subscriptions/")


def test_the_way_back_leads_to_the_original(uc_version: str) -> None:
    copy = copy_model_version(uc_version)
    back = copy_model_version(copy.model_uri, source_registry="aml")
    assert (back.model_uri, back.is_new) == (uc_version, False)


@pytest.mark.parametrize("is_by_uri", [True, False], ids=["two servers", "from Azure ML"])
def test_an_mlflow_server_gets_the_files_in_a_run(
    aml_registry: MlflowClient,
    mlflow_store: str,
    saved_model: Path,
    tmp_path: Path,
    is_by_uri: bool,
) -> None:
    other_uri = f"sqlite:///{tmp_path / 'other.db'}"
    client = MlflowClient(other_uri, other_uri) if is_by_uri else aml_registry
    source = register_in(client, "delay", saved_model)
    arguments = {
        "source_registry": other_uri if is_by_uri else "aml",
        "destination_registry": mlflow_store,
    }
    copies = [copy_model_version(source, **arguments) for _ in range(2)]
    assert [copy.is_new for copy in copies] == [True, False]
    destination = MlflowClient(mlflow_store, mlflow_store)
    assert files_of(destination, "models:/delay/1", tmp_path / "copy") == file_hashes(saved_model)
    assert len(destination.search_model_versions("name='delay'")) == 1
    assert mlflow.pyfunc.load_model("models:/delay/1").metadata.signature is not None


def test_a_refused_name_is_one_line_before_anything_is_copied(
    uc_version: str, aml_registry: MlflowClient, databricks: Databricks, azureml: AzureMl
) -> None:
    databricks.forget_requests()
    with pytest.raises(ArgumentError, match=r"in Azure ML must have .* got 'main\.ml\.delay'"):
        copy_model_version(uc_version, "main.ml.delay")
    register_name = "delay in minutes"
    with pytest.raises(ArgumentError, match="got 'delay in minutes'"):
        copy_model_version(uc_version, register_name)
    assert not databricks.requests(path="/fs/")
    assert not azureml.requests(path="registered-models/create")


def test_a_model_of_azure_ml_needs_a_catalog_and_a_schema_in_unity_catalog(
    aml_registry: MlflowClient, uc_registry: MlflowClient, saved_model: Path
) -> None:
    source = register_in(aml_registry, "delay", saved_model)
    with pytest.raises(ArgumentError, match=r"three parts, for example 'main\.ml\.delay'"):
        copy_model_version(source)


def test_a_version_that_is_nowhere_is_one_line_with_both_registries(linked: Link) -> None:
    with pytest.raises(RegistryError, match=r"none/1', which is not in Unity Catalog .* and Azure"):
        copy_model_version("models:/main.ml.none/1")


@pytest.fixture
def registries(mlflow_store: str, tmp_path: Path) -> dict[str, str]:
    """Registries of two MLflow servers, for a copy."""
    other_uri = f"sqlite:///{tmp_path / 'other.db'}"
    return {"source_registry": other_uri, "destination_registry": mlflow_store}


@pytest.fixture
def client(registries: dict[str, str]) -> MlflowClient:
    """Client of the server to copy from."""
    uri = registries["source_registry"]
    return MlflowClient(uri, uri)


def test_a_version_with_the_number_of_a_deleted_one_is_copied_again(
    client: MlflowClient, registries: dict[str, str], saved_model: Path
) -> None:
    source = register_in(client, "delay", saved_model)
    copy_model_version(source, **registries)
    client.delete_registered_model("delay")
    (saved_model / "weights" / "größe.bin").write_bytes(b"other")
    register_in(client, "delay", saved_model)
    copy = copy_model_version(source, **registries)
    assert (copy.model_uri, copy.is_new) == ("models:/delay/2", True)


class CopyProcess:
    """A process that copies, see `copy_process`.

    Args:
        environment: Variables of the process.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models.copy_process"],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def copy(self, kill_at: int = 0, *, is_after: bool = False, **arguments: str) -> int:
        """Copy in a fork; return its exit code, -9 if it was killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = json.dumps({**arguments, "kill_at": kill_at, "is_after": is_after})
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def copy_process(linked: Link) -> Iterator[CopyProcess]:
    """A process with the connected link."""
    link = {
        "DBX_AML_MODE": linked.mode,
        "DBX_AML_AML_TRACKING_URI": str(linked.aml_tracking_uri),
        "PYTHONPATH": str(ROOT),
    }
    process = CopyProcess({**os.environ, **link})
    yield process
    process.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_after", [False, True], ids=["before a request", "after its answer"])
@pytest.mark.parametrize("registry", ["aml", "databricks-uc"])
@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_copy_that_is_killed_at_any_request_ends_as_an_undisturbed_one(
    copy_process: CopyProcess,
    aml_registry: MlflowClient,
    uc_registry: MlflowClient,
    saved_model: Path,
    tmp_path: Path,
    registry: str,
    step: int,
    is_after: bool,
) -> None:
    if registry == "aml":
        source = register_in(uc_registry, "main.ml.delay", saved_model)
        destination, client = "delay-{}", aml_registry
    else:
        source = register_in(aml_registry, "delay", saved_model)
        destination, client = "main.ml.delay_{}", uc_registry
    tags = None
    for number in range(0, 500, step):
        name = destination.format(number)
        code = copy_process.copy(number, is_after=is_after, source=source, destination=name)
        if number:
            assert code == -signal.SIGKILL or number > 20, number
        final_code = copy_process.copy(source=source, destination=name)
        (version,) = client.search_model_versions(f"name='{name}'")
        version = client.get_model_version(name, version.version)
        # The time of the copy differs.
        version_tags = {key: text for key, text in version.tags.items() if "made_at" not in key}
        tags = tags or version_tags
        assert (final_code, str(version.version), version.status) == (0, "1", "READY"), number
        assert (version.aliases, version.description) == (["champion"], "Delay in minutes"), number
        assert version_tags == tags, number
        files = files_of(client, f"models:/{name}/1", tmp_path / name)
        assert files == file_hashes(saved_model), number
        if number and code == 0:
            break
    assert number > 20
    assert not [path for path in tmp_path.glob("dbx_aml_copies_*/*") if path.is_dir()]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_copy_that_is_killed_again_and_again_sends_no_file_twice(
    copy_process: CopyProcess, uc_version: str, aml_registry: MlflowClient, databricks: Databricks
) -> None:
    databricks.forget_requests()
    for number in range(1, 400, 5):
        if copy_process.copy(number, is_after=True, source=uc_version) == 0:
            break
    reads = Counter(entry.path for entry in databricks.requests(method="GET", path="/fs/files/"))
    assert [version.version for version in aml_registry.search_model_versions()] == ["1"]
    # The download of a file is repeated only if the process was killed while it ran.
    assert max(reads.values()) <= 6


def test_on_the_way_back_the_aliases_move_to_the_original(
    uc_version: str, aml_registry: MlflowClient
) -> None:
    copy = copy_model_version(uc_version)
    aml_registry.set_registered_model_alias(copy.name, "best", copy.version)
    back = copy_model_version(copy.model_uri, source_registry="aml", with_aliases=True)
    assert (back.model_uri, back.aliases) == (uc_version, ["best", "champion"])


def test_a_name_with_a_quote_has_one_copy(
    client: MlflowClient, registries: dict[str, str], saved_model: Path
) -> None:
    source = register_in(client, "ana's", saved_model)
    copies = [copy_model_version(source, **registries) for _ in range(2)]
    assert [(copy.model_uri, copy.is_new) for copy in copies] == [
        ("models:/ana's/1", True),
        ("models:/ana's/1", False),
    ]


def test_a_copy_is_made_after_the_experiment_of_earlier_copies_was_deleted(
    client: MlflowClient, registries: dict[str, str], mlflow_store: str, saved_model: Path
) -> None:
    copy_model_version(register_in(client, "delay", saved_model), **registries)
    destination = MlflowClient(mlflow_store, mlflow_store)
    experiment = destination.get_experiment_by_name("/Shared/dbx-aml model copies")
    destination.delete_experiment(experiment.experiment_id)
    copy = copy_model_version(register_in(client, "minutes", saved_model), **registries)
    assert (copy.model_uri, copy.is_new) == ("models:/minutes/1", True)
    assert mlflow.pyfunc.load_model("models:/minutes/1").metadata.signature is not None


def test_a_version_is_not_copied_onto_its_own_model(mlflow_store: str, saved_model: Path) -> None:
    source = register_in(MlflowClient(mlflow_store, mlflow_store), "delay", saved_model)
    with pytest.raises(ArgumentError, match="destination must not be the source itself"):
        copy_model_version(source, source_registry=mlflow_store, destination_registry=mlflow_store)


def test_a_registry_that_does_not_answer_is_an_error_that_says_how_to_go_on(
    mlflow_store: str, saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "/dev/null")
    register_in(MlflowClient(mlflow_store, mlflow_store), "delay", saved_model)
    other_uri = f"sqlite:///{tmp_path / 'other.db'}"
    with use_link(Link(mode="aml", aml_tracking_uri=mlflow_store)):
        with pytest.raises(RegistryError, match="or name the registry of the source"):
            copy_model_version("models:/delay/1", destination_registry=other_uri)
        copy = copy_model_version(
            "models:/delay/1", source_registry="aml", destination_registry=other_uri
        )
    assert copy.is_new
