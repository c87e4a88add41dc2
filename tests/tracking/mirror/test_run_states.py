"""Whatever changes at the source after a run was mirrored is found by searches, and arrives."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror import tags
from dbx_aml.tracking.mirror.compare import compare_models_without_run
from dbx_aml.tracking.mirror.experiments import MirroredExperiments
from dbx_aml.tracking.mirror.mirror_runs import mirror_runs
from dbx_aml.tracking.mirror.run_states import RunStates
from dbx_aml.tracking.mirror.server import MlflowServer
from dbx_aml.tracking.mirror.source_runs import find_experiment_ids, find_runs
from tests.support.mirror import EXPERIMENT_PATH, MirrorStores


def mirrored_run(stores: MirrorStores, run_id: str) -> Any:
    (mirrored_id,) = stores.mirrored_ids(run_id)
    return stores.destination.get_run(mirrored_id)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (lambda c, run: c.set_tag(run, "approved", "yes"), lambda run: run.data.tags["approved"]),
        (lambda c, run: c.log_metric(run, "late", 2.0), lambda run: run.data.metrics["late"]),
        (lambda c, run: c.log_param(run, "late", "2"), lambda run: run.data.params["late"]),
        (lambda c, run: c.update_run(run, name="new"), lambda run: run.info.run_name),
        (lambda c, run: c.update_run(run, status="FAILED"), lambda run: run.info.status),
        (lambda c, run: c.set_terminated(run, end_time=99), lambda run: run.info.end_time),
    ],
)
def test_a_change_after_the_mirror_arrives_and_a_search_is_all_that_finds_it(
    stores: MirrorStores, change: Callable[[MlflowClient, str], None], read: Callable[[Any], Any]
) -> None:
    run_id, other_id = stores.create_run("changed"), stores.create_run("other")
    stores.mirror()
    assert stores.mirror() == {}

    change(stores.source, run_id)
    results = stores.mirror()

    assert [(result.run_id, result.status) for result in results.values()] == [(run_id, "done")]
    assert read(mirrored_run(stores, run_id)) == read(stores.source.get_run(run_id))
    assert stores.mirrored_ids(other_id)
    assert stores.mirror() == {}


def test_a_deleted_run_and_a_restored_run_are_each_mirrored_once(stores: MirrorStores) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    stores.source.delete_run(run_id)
    assert stores.mirror()["run"].status == "deleted"
    assert mirrored_run(stores, run_id).data.tags[lineage.SOURCE_LIFECYCLE_STAGE] == "deleted"
    assert stores.mirror() == {}

    stores.source.restore_run(run_id)

    assert stores.mirror()["run"].status == "done"
    assert mirrored_run(stores, run_id).data.tags[lineage.SOURCE_LIFECYCLE_STAGE] == "active"
    assert stores.mirror() == {}


def test_a_tag_deleted_at_the_source_goes_and_a_tag_of_the_destination_alone_stays(
    stores: MirrorStores,
) -> None:
    long_names = {f"{'n' * 200}{number}": "x" for number in range(12)}
    run_id = stores.create_run("run", mine="1", kept="2", **long_names)
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    stores.destination.set_tag(mirrored_id, "reviewed", "yes")
    for name in ("mine", *list(long_names)[3:]):
        stores.source.delete_tag(run_id, name)

    stores.mirror()

    user_tags = tags.user_tags(mirrored_run(stores, run_id).data.tags)
    expected = {"kept": "2", "team": "a b", "reviewed": "yes"}
    expected |= dict.fromkeys(list(long_names)[:3], "x")
    assert {key: user_tags[key] for key in user_tags if "mlflow." not in key} == expected
    # The same name is set again, this time at the destination alone.
    stores.destination.set_tag(mirrored_id, "mine", "theirs")
    stores.source.set_tag(run_id, "kept", "3")
    stores.mirror()
    assert mirrored_run(stores, run_id).data.tags["mine"] == "theirs"


def test_a_run_that_is_done_at_one_destination_is_new_at_another(
    stores: MirrorStores, tmp_path: Any
) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    source, _ = stores.servers()
    second = MlflowServer(f"sqlite:///{tmp_path / 'second.db'}", "aml")
    for expected in ("done", "unchanged"):
        states = RunStates(source, second, [stores.experiment_id])
        runs = find_runs(source, [stores.experiment_id])
        (result,) = mirror_runs(source, second, runs, states=states)
        assert result.status == expected
    # The tag with the id of the mirrored run names the second destination now.
    assert stores.mirror() == {}
    assert len(stores.mirrored_ids(run_id)) == 1


def test_a_run_whose_mirrored_run_was_deleted_is_mirrored_again(stores: MirrorStores) -> None:
    run_id = stores.create_run("run")
    stores.mirror()
    (mirrored_id,) = stores.mirrored_ids(run_id)
    stores.destination.delete_run(mirrored_id)

    assert stores.mirror()["run"].status == "done"
    assert stores.mirrored_ids(run_id) != [mirrored_id]


def test_an_experiment_is_its_id_so_renamed_and_swapped_names_mix_up_nothing(
    stores: MirrorStores,
) -> None:
    first_id, path = stores.experiment_id, EXPERIMENT_PATH
    stores.create_run("before")
    stores.mirror()
    stores.source.rename_experiment(first_id, f"{path}-new")
    second_id = stores.source.create_experiment(path)
    stores.experiment_id = second_id
    stores.create_run("second")
    stores.mirror()
    stores.experiment_id = first_id
    stores.create_run("after")
    stores.mirror()

    def run_names(name: str) -> set[str]:
        experiment = stores.destination.get_experiment_by_name(name)
        runs = stores.destination.search_runs([experiment.experiment_id])
        return {run.info.run_name for run in runs}

    assert run_names(f"{path}-new") == {"before", "after"}
    assert run_names(path) == {"second"}


@pytest.mark.parametrize("is_taken", [False, True])
def test_two_processes_that_create_a_mirrored_experiment_at_once_create_one(
    stores: MirrorStores, is_taken: bool
) -> None:
    name = "/Shared/new"
    experiment_id = stores.source.create_experiment(name)
    if is_taken:
        other_tag = {lineage.SOURCE_EXPERIMENT_ID: "another workspace 7"}
        stores.destination.create_experiment(name, tags=other_tag)
    source, destination = stores.servers()
    find_experiment = destination.find_experiment

    def find_before_the_other_process_creates_it(name: str) -> Any:
        experiment = find_experiment(name)
        MirroredExperiments(*stores.servers()).find_or_create(experiment_id)
        return experiment

    vars(destination)["find_experiment"] = find_before_the_other_process_creates_it
    created = MirroredExperiments(source, destination).find_or_create(experiment_id)

    assert created.name == (f"{name}-{experiment_id}" if is_taken else name)
    names = [experiment.name for experiment in stores.destination.search_experiments()]
    assert sorted(names) == sorted({"Default", EXPERIMENT_PATH, name, created.name})


def test_an_experiment_of_a_databricks_workspace_is_found_by_each_address_of_the_workspace(
    stores: MirrorStores,
) -> None:
    def mirror_from(address: str) -> list[str]:
        source, destination = stores.servers()
        vars(source).update(is_databricks=True, display_name=address)
        ids = find_experiment_ids(source, [])
        states = RunStates(source, destination, ids)
        results = mirror_runs(source, destination, find_runs(source, ids), states=states)
        return [result.status for result in results]

    stores.create_run("run")
    assert mirror_from("https://westeurope.azuredatabricks.net") == ["done"]
    assert mirror_from("https://adb-1.2.azuredatabricks.net") == ["unchanged"]
    assert mirror_from("https://westeurope.azuredatabricks.net") == ["unchanged"]
    names = {experiment.name for experiment in stores.destination.search_experiments()}
    assert names == {"Default", EXPERIMENT_PATH}


def test_a_new_name_of_an_experiment_arrives_without_a_changed_run(stores: MirrorStores) -> None:
    stores.create_run("run")
    stores.mirror()
    stores.source.rename_experiment(stores.experiment_id, "/Shared/renamed")
    assert stores.mirror() == {}
    assert stores.destination.get_experiment_by_name("/Shared/renamed") is not None


def test_twenty_experiments_without_a_change_cost_five_searches_and_no_other_call(
    stores: MirrorStores,
) -> None:
    experiment_ids = [stores.experiment_id]
    experiment_ids += [stores.source.create_experiment(f"/Shared/{i}") for i in range(19)]
    for experiment_id in experiment_ids:
        stores.experiment_id = experiment_id
        stores.create_run("run")
    # An experiment without a marked run costs no call either.
    stores.source.create_experiment("/Shared/empty")
    calls: list[str] = []

    class CountingStore:
        def __init__(self, store: Any) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(self._store, name)

    def mirror() -> list[str]:
        source, destination = stores.servers()
        for server in (source, destination):
            vars(server)["store"] = CountingStore(server.store)
        ids = find_experiment_ids(source, [])
        states, runs = RunStates(source, destination, ids), find_runs(source, ids)
        return [result.status for result in mirror_runs(source, destination, runs, states=states)]

    assert mirror() == ["done"] * 20
    calls.clear()

    assert mirror() == ["unchanged"] * 20

    assert Counter(calls) == {
        "search_experiments": 2,
        "search_runs": 2,
        "search_logged_models": 1,
    }


def test_what_changes_on_a_logged_model_arrives(stores: MirrorStores) -> None:
    stores.create_run("other")
    with mlflow.start_run(run_name="run", tags={tags.STATUS: tags.PENDING}):
        values = {"first": 0.7, "second": 0.9, "third": 0.8}
        models = {}
        for step, (name, value) in enumerate(values.items()):
            models[name] = mlflow.initialize_logged_model(name=name, tags={"mine": "1"})
            mlflow.log_metric("acc", value, step=step, model_id=models[name].model_id)
    stores.mirror()

    def copies() -> dict[str, Any]:
        experiment = stores.destination.get_experiment_by_name(EXPERIMENT_PATH)
        found = stores.destination.search_logged_models([experiment.experiment_id])
        return {model.name: model for model in found}

    def values_of(name: str) -> list[float]:
        return [metric.value for metric in copies()[name].metrics]

    assert {name: values_of(name) for name in values} == {k: [v] for k, v in values.items()}
    assert stores.mirror() == {}

    first_id = models["first"].model_id
    stores.source.set_logged_model_tags(first_id, {"approved": "yes"})
    stores.source.delete_logged_model_tag(first_id, "mine")
    stores.source.finalize_logged_model(first_id, "READY")
    with mlflow.start_run(run_name="evaluation", tags={tags.STATUS: tags.PENDING}):
        mlflow.log_metric("f1", 0.5, model_id=first_id)
    assert {name: result.status for name, result in stores.mirror().items()} == {
        "run": "done",
        "evaluation": "done",
    }
    copied_model = copies()["first"]
    assert copied_model.tags["approved"] == "yes"
    assert "mine" not in copied_model.tags
    assert str(copied_model.status) == "READY"
    (f1,) = [metric for metric in copied_model.metrics if metric.key == "f1"]
    assert stores.destination.get_run(f1.run_id).info.run_name == "evaluation"
    assert stores.mirror() == {}


def test_a_logged_model_without_a_run_arrives_with_the_metric_of_the_run_that_evaluates_it(
    stores: MirrorStores,
) -> None:
    model = mlflow.initialize_logged_model(name="agent", params={"llm": "x"})
    mlflow.finalize_logged_model(model.model_id, "READY")
    with mlflow.start_run(run_name="evaluation", tags={tags.STATUS: tags.PENDING}):
        mlflow.log_metric("f1", 0.5, model_id=model.model_id)

    assert stores.mirror()["agent"].status == "done"

    experiment = stores.destination.get_experiment_by_name(EXPERIMENT_PATH)
    (copied_model,) = stores.destination.search_logged_models([experiment.experiment_id])
    assert (copied_model.name, copied_model.params) == ("agent", {"llm": "x"})
    assert [(metric.key, metric.value) for metric in copied_model.metrics] == [("f1", 0.5)]
    assert stores.mirror() == {}


def test_copies_of_models_without_a_run_are_searched_once_an_experiment(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.create_run("run")
    for number in range(3):
        model = mlflow.initialize_logged_model(name=f"agent-{number}")
        mlflow.finalize_logged_model(model.model_id, "READY")
    assert len(stores.mirror()) == 4
    searches: list[str] = []
    search = SqlAlchemyStore.search_logged_models

    def count_search(self: SqlAlchemyStore, *args: Any, **kwargs: Any) -> Any:
        searches.append(self.db_uri)
        return search(self, *args, **kwargs)

    monkeypatch.setattr(SqlAlchemyStore, "search_logged_models", count_search)

    assert stores.mirror() == {}
    assert Counter(searches) == {stores.source_uri: 1, stores.destination_uri: 1}
    searches.clear()
    assert list(compare_models_without_run(*stores.servers(), [stores.experiment_id])) == []
    assert Counter(searches) == {stores.source_uri: 1, stores.destination_uri: 1}


def test_two_mirrors_that_create_the_copy_of_a_model_at_once_leave_the_first(
    stores: MirrorStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.create_run("run")
    stores.mirror()
    model = mlflow.initialize_logged_model(name="agent")
    mlflow.finalize_logged_model(model.model_id, "READY")
    create_model = SqlAlchemyStore.create_logged_model

    def create_after_another_mirror(self: SqlAlchemyStore, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(SqlAlchemyStore, "create_logged_model", create_model)
        stores.mirror()
        return create_model(self, *args, **kwargs)

    monkeypatch.setattr(SqlAlchemyStore, "create_logged_model", create_after_another_mirror)

    assert stores.mirror()["agent"].status == "done"
    (copied_model,) = stores.destination.search_logged_models(["1"])
    assert (copied_model.name, str(copied_model.status)) == ("agent", "READY")
    assert stores.mirror() == {}


def test_children_of_a_marked_run_are_mirrored_and_other_unmarked_runs_are_not(
    stores: MirrorStores,
) -> None:
    parent_id = stores.create_run("parent")
    for name, parent in (("child", {tags.PARENT_RUN_ID: parent_id}), ("old", {})):
        run = stores.source.create_run(stores.experiment_id, run_name=name, tags=parent)
        stores.source.set_terminated(run.info.run_id)

    assert set(stores.mirror()) == {"parent", "child"}
    runs = stores.destination.search_runs(["1"], run_view_type=ViewType.ALL)
    assert {run.info.run_name for run in runs} == {"parent", "child"}
