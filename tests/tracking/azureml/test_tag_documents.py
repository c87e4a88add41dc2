"""What the store for Azure ML writes into tags, names and artifacts, without any server."""

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException, RestException

from dbx_aml.link.experiments import experiment_name
from dbx_aml.tracking.azureml import logged_model_document as documents
from dbx_aml.tracking.azureml.artifact_container import run_parts
from dbx_aml.tracking.azureml.async_logging import AsyncLog
from dbx_aml.tracking.azureml.experiment_store import accepted_name
from dbx_aml.tracking.azureml.model_version_tags import aliases_among, timestamp
from dbx_aml.tracking.azureml.run_overflow import Spill
from dbx_aml.tracking.azureml.service_context import names_workspace, same_workspace
from dbx_aml.tracking.azureml.store import AmlTrackingStore
from dbx_aml.tracking.azureml.tag_documents import (
    LONGEST_TAG,
    document_in,
    document_tags,
    is_hidden,
    model_keys,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(max_size=20), _JSON))
def test_a_document_comes_back_from_tags_as_long_as_a_tag_may_be(document: dict[str, Any]) -> None:
    tags = document_tags("dbx_aml.run_inputs", document)

    assert document_in("dbx_aml.run_inputs", tags) == document
    assert all(len(text) <= LONGEST_TAG for text in tags.values()) or len(tags) == 1


def test_a_shorter_document_over_a_longer_one_leaves_nothing_of_it() -> None:
    long = {"params": {f"name {number}": str(number**7) for number in range(200)}}
    tags = document_tags("k", long)
    assert len(tags) > 2
    assert document_in("k", tags) == long

    tags |= document_tags("k", {"params": {}})

    assert document_in("k", tags) == {"params": {}}


def test_a_document_of_which_a_part_is_missing_is_none() -> None:
    tags = document_tags("k", {"params": {str(number): str(number**9) for number in range(300)}})
    del tags["k.1"]

    assert document_in("k", tags) is None
    assert document_in("other", tags) is None


def test_only_the_stores_own_tags_are_hidden() -> None:
    own = (
        "dbx_aml.create_id",
        "dbx_aml.overflow",
        "dbx_aml.logged_model.0a1b2c3d.0",
        "dbx_aml.run_inputs.0",
    )
    assert all(is_hidden(key) for key in own)
    assert not any(is_hidden(key) for key in ("dbx_aml.mirror", "dbx_aml.placeholder_run", "team"))
    assert model_keys({key: "" for key in own}) == ["dbx_aml.logged_model.0a1b2c3d"]


@given(st.text(max_size=2000), st.sampled_from([500, 1000]))
def test_a_long_value_is_cut_to_what_the_service_takes_and_found_again(
    value: str, longest: int
) -> None:
    spill = Spill()

    fitted = spill.fitted(value, longest)

    assert len(fitted) <= longest
    assert spill.whole(fitted) == value
    assert bool(spill) is (len(value) > longest)


def test_a_value_that_somebody_else_wrote_stays_as_it_is() -> None:
    spill = Spill()
    spill.fitted("x" * 1001, 1000)

    assert spill.whole("later") == "later"
    assert spill.whole("… [dbx_aml 000000000000]") == "… [dbx_aml 000000000000]"


def test_a_model_is_found_by_its_identifier_without_a_search() -> None:
    for run_id in ("2b7d4c8e-9f11-4d5a-8c3b-1a2b3c4d5e6f", "red_owl_x1y2", "abc"):
        model_id = documents.new_model_id(run_id)
        found, key = documents.parts_of(model_id)
        assert found == run_id
        assert documents.model_id_of(run_id, key) == model_id
    with pytest.raises(MlflowException, match="logged model 'm-123' is not in Azure ML"):
        documents.parts_of("m-123")


def test_the_last_value_of_each_metric_and_dataset_is_kept() -> None:
    links = [
        ["auc", 0.5, 10, 0, "train", "d1", "r"],
        ["auc", 0.6, 20, 1, "train", "d1", "r"],
        ["auc", 0.4, 15, 0, "test", "d2", "r"],
        ["auc", 0.1, 5, 0, "train", "d1", "r"],
    ]
    assert documents.merged(links) == [
        ["auc", 0.6, 20, 1, "train", "d1", "r"],
        ["auc", 0.4, 15, 0, "test", "d2", "r"],
    ]


def test_a_name_that_azure_ml_takes_stays_and_another_is_mapped() -> None:
    assert accepted_name("iris-2_b") == "iris-2_b"
    path = "/Users/ana@contoso.com/team/iris"
    assert accepted_name(path) == experiment_name(path)
    names = [path, "/Users/bob@contoso.com/team/iris", "my iris", "_iris", "a" * 257, "fleurs été"]
    mapped = [accepted_name(name) for name in names]
    assert len(set(mapped)) == len(names)
    assert [accepted_name(name) for name in mapped] == mapped


def test_the_newest_alias_counts() -> None:
    earlier = timestamp()
    later = timestamp()
    assert earlier < later
    versions = [
        SimpleNamespace(version="2", tags={"dbx_aml.alias.champion": later, "team": "risk"}),
        SimpleNamespace(version="10", tags={"dbx_aml.alias.champion": earlier}),
        SimpleNamespace(version="1", tags={"dbx_aml.alias.first": earlier}),
    ]
    assert aliases_among(versions) == {"champion": "2", "first": "1"}


_SCOPE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/"


def test_a_uri_says_which_workspace_run_and_path_it_means() -> None:
    one = f"azureml://h.api.azureml.ms/mlflow/v1.0{_SCOPE}w"
    run = f"azureml://h.api.azureml.ms/mlflow/v2.0{_SCOPE}W/experiments/e/runs/r/artifacts/a b/c"
    assert names_workspace(one)
    assert names_workspace(one.replace("azureml://", "adbazureml://"))
    assert not names_workspace("azureml://artifacts/LocalUpload/c/model")
    assert not names_workspace("sqlite:///mlflow.db")
    assert same_workspace(one, run)
    assert not same_workspace(one, f"azureml://h.api.azureml.ms/mlflow/v1.0{_SCOPE}other")
    assert not same_workspace(one, "sqlite:///mlflow.db")
    assert run_parts(run) == ("e", "r", "a b/c")
    assert run_parts(run.removesuffix("/a b/c")) == ("e", "r", "")
    assert run_parts(one) is None


def test_what_waits_in_the_background_is_sent_together_and_in_order() -> None:
    sent: list[list[int]] = []
    first = threading.Event()

    def log_batch(run_id: str, metrics: list[int], params: list[int], tags: list[int]) -> None:
        first.wait(5)
        sent.append(metrics)

    queue = AsyncLog(log_batch)
    started = time.monotonic()
    operations = [queue.log_batch_async("r", [], [], [number]) for number in range(2_500)]
    took = time.monotonic() - started
    first.set()
    queue.flush()

    assert [value for batch in sent for value in batch] == list(range(2_500))
    assert len(sent) <= 5
    assert took < 1
    operations[-1].wait()


def test_one_refused_value_does_not_spoil_those_it_was_sent_with() -> None:
    sent: list[str] = []
    go = threading.Event()

    def log_batch(run_id: str, metrics: list[str], params: list[str], tags: list[str]) -> None:
        go.wait(5)
        if "bad" in params:
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"})
        sent.extend(params)

    queue = AsyncLog(log_batch)
    queue.log_batch_async("r", ["zero"], [], [])
    bad = queue.log_batch_async("r", ["bad"], [], [])
    good = queue.log_batch_async("r", ["good"], [], [])
    go.set()
    queue.flush()

    assert sent == ["zero", "good"]
    good.wait()
    with pytest.raises(MlflowException, match="INVALID_PARAMETER_VALUE: no"):
        bad.wait()


class _Recorded(AmlTrackingStore):
    """A store whose calls are kept and answered from here."""

    def __init__(self, run_tags: dict[str, str]) -> None:
        super().__init__(SimpleNamespace())
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._tags = run_tags

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, endpoint: str | None = None, **_: Any
    ) -> Any:
        self.calls.append((api.__name__, json.loads(json_body or "{}")))
        answer = api.Response()
        if api.__name__ == "GetMetricHistory":
            answer.metrics.add(key="auc", value=0.5, timestamp=7, step=0)
        if api.__name__ == "GetRun":
            answer.run.info.run_id = "r"
            for key, text in self._tags.items():
                answer.run.data.tags.add(key=key, value=text)
        return answer

    def sent_metrics(self) -> list[tuple[str, float]]:
        batches = [body for name, body in self.calls if name == "LogBatch"]
        return [(one["key"], one["value"]) for body in batches for one in body.get("metrics", [])]


def test_a_metric_that_was_just_read_is_linked_to_a_model_and_not_sent_again() -> None:
    document = {"name": "m", "folder": "m", "status": "PENDING", "created": 1, "updated": 1}
    store = _Recorded(document_tags("dbx_aml.logged_model.0a1b2c3d", document))
    model_id = "m-r-0a1b2c3d"
    (read,) = store.get_metric_history("r", "auc")

    again = Metric("auc", read.value, read.timestamp, read.step, model_id=model_id)
    new = Metric("auc", 0.75, 8, 0, model_id=model_id)
    store.log_batch("r", [again, new], [], [])

    assert store.sent_metrics() == [("auc", 0.75)]
    written = {
        tag["key"]: tag["value"]
        for name, body in store.calls
        if name == "LogBatch"
        for tag in body.get("tags", [])
    }
    kept = document_in("dbx_aml.logged_model.0a1b2c3d", written)
    assert kept is not None
    assert kept["metrics"] == [["auc", 0.75, 8, 0, "", "", "r"]]


def test_a_metric_of_a_model_on_another_server_is_a_metric_of_the_run() -> None:
    store = _Recorded({})

    store.log_metric("r", Metric("auc", 0.5, 1, 0, model_id="m-0123456789abcdef"))
    store.update_run_info("r", 3, 2, None)

    assert store.sent_metrics() == [("auc", 0.5)]


def test_a_store_made_earlier_asks_with_the_credential_of_the_link_in_force(monkeypatch):
    from dbx_aml.link.link import Link
    from dbx_aml.tracking.azureml import service_context as azureml_context
    from dbx_aml.tracking.connect import set_connected_link

    class Named:
        def __init__(self, link):
            self.name = link.client_id

        def get_token(self, *scopes, **options):
            return self.name

    monkeypatch.setattr(azureml_context, "credential", Named)
    monkeypatch.setenv("DBX_AML_CLIENT_ID", "environment")
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureCloud")
    host = "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    path = "/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/of-words"
    context = azureml_context.context_of(f"{host}8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42{path}")
    assert context.auth.get_token("scope") == "environment"
    before = set_connected_link(Link(client_id="first"))
    try:
        assert context.auth.get_token("scope") == "first"
        set_connected_link(Link(client_id="second"))
        assert context.auth.get_token("scope") == "second"
    finally:
        set_connected_link(before)


def test_a_shared_registry_is_asked_with_a_credential_that_asks_no_person(monkeypatch):
    from azureml.mlflow._client.artifact import registry_artifact_client

    from dbx_aml.tracking.azureml.plugin import artifact_repository

    asked = {}

    def client(registry_name, auth):
        asked.update(name=registry_name, auth=type(auth).__module__)
        return None, "rg", "sub"

    monkeypatch.setattr(registry_artifact_client, "get_registry_client", client)
    uri = (
        "azureml://westeurope.api.azureml.ms/mlflow/v2.0/registries/shared/models/delay"
        "/versions/3/storage/account/paths/container/model"
    )
    repository = artifact_repository(uri)
    assert asked == {"name": "shared", "auth": "dbx_aml.tracking.azureml.service_context"}
    assert repository.artifacts.path.startswith("mlflow/v2.0/registries/shared/models/delay")
