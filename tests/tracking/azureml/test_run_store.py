"""Runs in Azure ML through our store: nothing lost, nothing twice, within the service's limits."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from dbx_aml.link.experiments import experiment_name
from dbx_aml.tracking.azureml.service_context import service_context_of
from dbx_aml.tracking.azureml.store import AmlTrackingStore
from tests.support.azureml import AzureMl
from tests.support.azureml.plain_client import plain_artifacts, plain_store

pytestmark = pytest.mark.azureml

PATH = "/Users/ana@contoso.com/team/iris"


def test_an_experiment_is_found_by_its_path_and_by_its_mapped_name(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    experiment = mlflow.set_experiment(PATH)

    assert experiment.name == PATH
    assert mlflow.set_experiment(PATH).experiment_id == experiment.experiment_id
    by_mapped_name = azureml_client.get_experiment_by_name(experiment_name(PATH))
    assert by_mapped_name is not None
    assert by_mapped_name.experiment_id == experiment.experiment_id
    (by_filter,) = azureml_client.search_experiments(filter_string=f"name = '{PATH}'")
    assert by_filter.name == PATH
    assert azureml_client.get_experiment_by_name(PATH.replace("ana", "bob")) is None
    with pytest.raises(MlflowException, match=f"{PATH}.* already exists"):
        azureml_client.create_experiment(PATH)

    plain = plain_store(azureml.tracking_uri).get_experiment(experiment.experiment_id)
    assert plain.name == experiment_name(PATH)
    assert plain.tags == {"dbx_aml.experiment_path": PATH}


@pytest.mark.slow
def test_values_beyond_the_limits_of_a_run_come_back_with_it(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    mlflow.set_experiment("overflow")
    with mlflow.start_run(tags={f"t{i:02}": str(i) for i in range(70)}) as active_run:
        run_id = active_run.info.run_id
        mlflow.log_params({f"p{i:03}": i for i in range(195)})
        for i in range(195, 203):
            mlflow.log_param(f"p{i:03}", i)
        mlflow.log_param("p202", 202)
        mlflow.log_param("text", "x" * 600)
        for key, value in (("p202", 203), ("text", "x" * 601)):
            with pytest.raises(MlflowException, match="Changing param values is not allowed"):
                mlflow.log_param(key, value)
        mlflow.set_tag("long", "a" * 2000)
        mlflow.set_tag("longer", "b" * 3000)
        mlflow.set_tag("long", "short")
        mlflow.set_tag("longer", "c" * 3000)
        mlflow.delete_tag("t00")
        azureml_client.log_batch(run_id, tags=[RunTag(f"u{i}", "v" * 999) for i in range(60)])
        azureml_client.log_batch(run_id, metrics=[Metric("m", i, 1000 + i, i) for i in range(900)])

    run = azureml_client.get_run(run_id)
    assert run.data.params == {f"p{i:03}": str(i) for i in range(203)} | {"text": "x" * 600}
    tags = {key: text for key, text in run.data.tags.items() if "mlflow" not in key}
    expected_tags = {f"t{i:02}": str(i) for i in range(1, 70)}
    expected_tags |= {f"u{i}": "v" * 999 for i in range(60)}
    assert tags == expected_tags | {"long": "short", "longer": "c" * 3000}
    history = azureml_client.get_metric_history(run_id, "m")
    assert [metric.step for metric in history] == list(range(900))
    (by_search,) = azureml_client.search_runs([run.info.experiment_id])
    assert by_search.data.params == run.data.params
    assert azureml_client.list_artifacts(run_id) == []
    assert all(entry.status < 500 for entry in azureml.requests())

    # A client without this package sees an ordinary run with less in it.
    plain = plain_store(azureml.tracking_uri).get_run(run_id)
    assert len(plain.data.params) == 200
    assert plain.data.params.items() <= run.data.params.items()
    assert int(plain.data.tags["dbx_aml.overflow"]) >= 4
    artifacts = plain_artifacts(run.info.artifact_uri).list_artifacts(None)
    assert [info.path for info in artifacts] == ["dbx_aml"]


@pytest.mark.slow
def test_a_killed_program_loses_no_parameter_whose_call_has_returned(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    code = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
run = mlflow.start_run(run_name="killed")
mlflow.log_params({f"p{i}": i for i in range(199)})
for i in range(199, 1000):
    mlflow.log_param(f"p{i}", i)
    print(run.info.run_id, i, flush=True)
"""
    with azureml.start(code) as program:
        assert program.stdout
        lines = [program.stdout.readline() for _ in range(6)]
        program.send_signal(signal.SIGKILL)
        lines += program.stdout.readlines()
    run_id, last = next(line for line in reversed(lines) if line.endswith("\n")).split()

    params = azureml_client.get_run(run_id).data.params

    assert int(last) >= 204
    assert {f"p{i}": str(i) for i in range(int(last) + 1)}.items() <= params.items()


@pytest.mark.slow
def test_two_stores_write_to_the_overflow_of_one_run_at_once(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    run_id = azureml_client.create_run(azureml_client.create_experiment("two")).info.run_id
    azureml_client.log_batch(run_id, params=[Param(f"p{i}", "v") for i in range(200)])

    def log_params(prefix: str) -> None:
        store = AmlTrackingStore(service_context_of(azureml.tracking_uri))
        for i in range(4):
            store.log_param(run_id, Param(f"{prefix}{i}", str(i)))

    with ThreadPoolExecutor() as pool:
        list(pool.map(log_params, "ab"))

    params = azureml_client.get_run(run_id).data.params
    assert {f"{prefix}{i}": str(i) for prefix in "ab" for i in range(4)}.items() <= params.items()
    assert len(params) == 208


@pytest.mark.slow
def test_background_logging_returns_before_it_sends_and_is_sent_before_the_run_ends(
    azureml: AzureMl, azureml_client: MlflowClient
) -> None:
    mlflow.set_experiment("background")
    with mlflow.start_run() as active_run:
        run_id = active_run.info.run_id
        azureml.fault("delay", delay_s=0.5, path="runs/log-batch")
        started = time.monotonic()
        for step in range(1000):
            mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.log_param("p", 1, synchronous=False)
        mlflow.set_tag("t", "first", synchronous=False)
        mlflow.set_tag("t", "second", synchronous=False)
        loop_s = time.monotonic() - started

    assert len(azureml.requests(path="runs/log-batch")) < 12
    assert not azureml.requests(path="log-batch-async")
    # 1,003 requests of half a second each would take eight minutes.
    assert loop_s < 10
    run = azureml_client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["p"], run.data.tags["t"]) == ("1", "second")
    history = azureml_client.get_metric_history(run_id, "m")
    assert [metric.step for metric in history] == list(range(1000))


@pytest.mark.parametrize("is_supported", [True, False])
def test_datasets_of_a_run_are_kept_with_and_without_support_of_the_service(
    azureml: AzureMl, azureml_client: MlflowClient, is_supported: bool
) -> None:
    if not is_supported:
        azureml.fault("status", status=404, path="runs/log-inputs")
    mlflow.set_experiment("datasets")
    dataset = mlflow.data.from_pandas(pd.DataFrame({"x": range(9)}), name="nine")
    with mlflow.start_run() as active_run:
        mlflow.log_input(dataset, context="training", tags={"split": "a"})

    (stored,) = azureml_client.get_run(active_run.info.run_id).inputs.dataset_inputs
    assert stored.dataset.name == "nine"
    assert {tag.key: tag.value for tag in stored.tags} == {
        "mlflow.data.context": "training",
        "split": "a",
    }
    assert stored.dataset.schema == (
        '{"mlflow_colspec": [{"type": "long", "name": "x", "required": true}]}'
    )


@pytest.mark.slow
def test_traces_do_not_break_a_run_and_warn_once(azureml: AzureMl) -> None:
    program = azureml.run(
        """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("traces")
@mlflow.trace
def traced(x):
    return x + 1
with mlflow.start_run() as run:
    for i in range(3):
        traced(i)
    mlflow.log_metric("m", 1)
mlflow.flush_trace_async_logging()
print(mlflow.search_traces(return_type="list"), mlflow.get_run(run.info.run_id).data.metrics)
"""
    )

    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines()[-1] == "[] {'m': 1.0}"
    lines = [line for line in program.stderr.splitlines() if " INFO " not in line]
    warnings = [line for line in lines if "trace" in line.lower()]
    assert len(warnings) == 1, warnings
    assert "Azure ML takes no traces" in warnings[0]


def test_runs_are_found_by_what_is_in_their_overflow_in_mlflows_order_over_pages(
    azureml_client: MlflowClient,
) -> None:
    client = azureml_client
    experiment_id = client.create_experiment("searched")
    for number in range(6):
        run = client.create_run(experiment_id, start_time=1000 + number, run_name=str(number))
        run_id = run.info.run_id
        client.log_metric(run_id, "m", number % 3)
        client.set_tag(run_id, "kind", "all")
        if number % 2:
            client.log_param(run_id, "text", "y" * 600 + "END")
            client.set_tag(run_id, "long", "z" * 1500 + str(number))
        else:
            client.log_param(run_id, "text", "short")

    # The newest run has more parameters than a run in Azure ML takes.
    newest, *_ = client.search_runs([experiment_id])
    params = [Param(f"p{number:03}", str(number)) for number in range(210)]
    client.log_batch(newest.info.run_id, params=params)

    def find(filter_string: str, max_results: int = 100, **options: Any) -> list[list[str]]:
        pages, token = [], None
        while token is not None or not pages:
            page = client.search_runs(
                [experiment_id], filter_string, max_results=max_results, page_token=token, **options
            )
            pages.append([run.info.run_name for run in page])
            token = page.token or None
        return pages

    odd = [["5", "3", "1"]]
    assert find("params.text = '" + "y" * 600 + "END'") == odd
    assert find("params.text LIKE '%END'") == odd
    assert find("params.p209 = '209'") == [["5"]]
    assert find("params.p209 != '1' AND metrics.m > 0") == [["5"]]
    assert find("params.text LIKE '%END' AND metrics.m > 0") == [["5", "1"]]
    assert find("tags.long LIKE '%3'") == [["3"]]
    assert find("params.text != 'short'") == odd
    assert find("params.text = 'short'") == [["4", "2", "0"]]
    assert find("tags.kind = 'all'", 4) == [["5", "4", "3", "2"], ["1", "0"]]
    by_metric = ["metrics.m DESC", "start_time ASC"]
    assert find("tags.kind = 'all'", 2, order_by=by_metric) == [["2", "5"], ["1", "4"], ["0", "3"]]
    first = client.search_runs([experiment_id], "tags.kind = 'all'", max_results=5)
    second = client.search_runs(
        [experiment_id], "tags.kind = 'all'", max_results=1, page_token=first.token
    )
    assert [run.info.run_name for run in second] == ["0"]
    with pytest.raises(MlflowException, match="page token must be of the same search"):
        client.search_runs([experiment_id], "tags.kind = 'all'", page_token="e30=")
