"""Runs in Azure ML through our store: nothing lost, nothing twice, within the service's limits."""

import signal
from typing import Any

import pytest

from tests.support.azureml import AzureMl
from tests.support.azureml.program import found_by

pytestmark = [pytest.mark.azureml, pytest.mark.slow]

# What a client without this package sees.
_PLAIN_RUN = """
data = client.get_run(sys.argv[2]).data
found.update(params=data.params, tags=data.tags)
found["listed"] = [f.path for f in client.list_artifacts(sys.argv[2])]
"""


def _ours(azureml: AzureMl, code: str, *arguments: str, **options: Any) -> dict[str, Any]:
    return found_by(azureml, code, *arguments, plain=False, **options)


def test_an_experiment_is_found_by_its_path_and_by_its_name(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        path = "/Users/ana@contoso.com/team/iris"
        made = mlflow.set_experiment(path)
        again = mlflow.set_experiment(path)
        found["same"] = made.experiment_id == again.experiment_id
        found["name"] = again.name
        by_name = client.get_experiment_by_name("iris-5ab6b4d7") or client.get_experiment_by_name(
            sys.argv[2])
        found["by_name"] = by_name.experiment_id == made.experiment_id
        search = client.search_experiments(filter_string=f"name = '{path}'")
        found["searched"] = [e.name for e in search]
        found["none"] = client.get_experiment_by_name("/Users/bob@contoso.com/team/iris") is None
        found["exists"] = error_of(client.create_experiment, path)[1]
        client.create_experiment("my iris é")
        found["other"] = client.get_experiment_by_name("my iris é").name
        """,
        _mapped("/Users/ana@contoso.com/team/iris"),
    )
    names = found_by(
        azureml,
        "found['all'] = [[e.name, dict(e.tags)] for e in client.search_experiments()]",
    )

    assert found["same"] and found["by_name"] and found["none"]
    assert found["name"] == "/Users/ana@contoso.com/team/iris"
    assert found["searched"] == ["/Users/ana@contoso.com/team/iris"]
    assert "already exists" in found["exists"]
    assert found["other"] == "my iris é"
    mapped = _mapped("/Users/ana@contoso.com/team/iris")
    tags = {"dbx_aml.experiment_path": "/Users/ana@contoso.com/team/iris"}
    assert [mapped, tags] in names["all"]


def _mapped(path: str) -> str:
    from dbx_aml.link.experiments import experiment_name

    return experiment_name(path)


def test_what_a_run_does_not_take_comes_back_with_it(azureml: AzureMl) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("overflow")
        with mlflow.start_run(tags={f"t{i:02}": str(i) for i in range(70)}) as run:
            mlflow.log_params({f"p{i:03}": i for i in range(195)})
            for i in range(195, 203):
                mlflow.log_param(f"p{i:03}", i)
            mlflow.log_param("p202", 202)
            found["changed"] = error_of(mlflow.log_param, "p202", 203)[1]
            mlflow.log_param("text", "x" * 600)
            found["changed long"] = error_of(mlflow.log_param, "text", "x" * 601)[1]
            mlflow.set_tag("long", "a" * 2000)
            mlflow.set_tag("longer", "b" * 3000)
            mlflow.set_tag("long", "short")
            mlflow.set_tag("longer", "c" * 3000)
            mlflow.delete_tag("t00")
            client.log_batch(run.info.run_id, tags=[RunTag(f"u{i}", "v" * 999) for i in range(60)])
            metrics = [Metric("m", i, 1000 + i, i) for i in range(900)]
            client.log_batch(run.info.run_id, metrics=metrics)
        run_id = found["run_id"] = run.info.run_id
        data = client.get_run(run_id).data
        found["params"] = data.params
        found["tags"] = {key: text for key, text in data.tags.items() if "mlflow" not in key}
        found["steps"] = [m.step for m in client.get_metric_history(run_id, "m")]
        (searched,) = client.search_runs([run.info.experiment_id])
        found["searched"] = searched.data.params == data.params
        found["listed"] = [f.path for f in client.list_artifacts(run_id)]
        """,
    )
    plain = found_by(azureml, _PLAIN_RUN, found["run_id"])

    assert found["params"] == {f"p{i:03}": str(i) for i in range(203)} | {"text": "x" * 600}
    assert "Changing param values is not allowed" in found["changed"]
    assert "Changing param values is not allowed" in found["changed long"]
    expected = {f"t{i:02}": str(i) for i in range(1, 70)} | {"long": "short", "longer": "c" * 3000}
    assert found["tags"] == expected | {f"u{i}": "v" * 999 for i in range(60)}
    assert found["steps"] == list(range(900))
    assert found["searched"]
    assert found["listed"] == []
    # An ordinary run, with less.
    assert len(plain["params"]) == 200
    assert set(plain["params"].items()) <= set(found["params"].items())
    assert int(plain["tags"]["dbx_aml.overflow"]) >= 4
    assert plain["listed"] == ["dbx_aml"]
    assert all(entry.status < 500 for entry in azureml.requests())


def test_a_killed_program_loses_nothing_that_it_was_told_is_kept(azureml: AzureMl) -> None:
    with azureml.start(
        """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("killed")
run = mlflow.start_run(run_name="killed")
for i in range(1000):
    mlflow.log_param(f"p{i}", i)
    if i >= 199:
        print(run.info.run_id, i, flush=True)
"""
    ) as client:
        assert client.stdout
        told = [client.stdout.readline() for _ in range(6)]
        client.send_signal(signal.SIGKILL)
        told += client.stdout.readlines()
    run_id, last = told[-1].split() if told[-1].endswith("\n") else told[-2].split()

    found = _ours(azureml, "found['p'] = client.get_run(sys.argv[2]).data.params", run_id)

    assert {f"p{i}": str(i) for i in range(int(last) + 1)}.items() <= found["p"].items()
    assert int(last) >= 204


def test_two_programs_overflow_one_run_at_once(azureml: AzureMl) -> None:
    made = _ours(
        azureml,
        """
        run = client.create_run(client.create_experiment("two"))
        client.log_batch(run.info.run_id, params=[Param(f"p{i}", "v") for i in range(100)])
        client.log_batch(run.info.run_id, params=[Param(f"q{i}", "v") for i in range(100)])
        found["run_id"] = run.info.run_id
        """,
    )
    code = """
import mlflow, sys
client = mlflow.MlflowClient(sys.argv[1])
client.get_run(sys.argv[2])
for i in range(8):
    client.log_param(sys.argv[2], f"{sys.argv[3]}{i}", i)
"""
    both = [azureml.start(code, made["run_id"], name) for name in ("a", "b")]
    for one in both:
        assert one.wait(90) == 0, one.communicate()
        one.communicate()

    found = _ours(azureml, "found['p'] = client.get_run(sys.argv[2]).data.params", made["run_id"])

    expected = {f"{name}{i}": str(i) for name in "ab" for i in range(8)}
    assert expected.items() <= found["p"].items()
    assert len(found["p"]) == 216


def test_background_logging_returns_before_it_sends_and_is_flushed_at_the_end(
    azureml: AzureMl,
) -> None:
    found = _ours(
        azureml,
        """
        mlflow.set_experiment("background")
        with mlflow.start_run() as run:
            fault("delay", delay_s=0.5, path="runs/log-batch")
            started = time.monotonic()
            for step in range(1000):
                mlflow.log_metric("m", step, step=step, synchronous=False)
            mlflow.log_param("p", 1, synchronous=False)
            mlflow.set_tag("t", "first", synchronous=False)
            mlflow.set_tag("t", "second", synchronous=False)
            found["loop_s"] = time.monotonic() - started
        got = client.get_run(run.info.run_id)
        found["status"] = got.info.status
        found["data"] = [got.data.params["p"], got.data.tags["t"]]
        found["steps"] = [m.step for m in client.get_metric_history(run.info.run_id, "m")]
        """,
    )

    assert found["steps"] == list(range(1000))
    assert found["data"] == ["1", "second"]
    assert found["status"] == "FINISHED"
    assert found["loop_s"] < 1
    assert len(azureml.requests(path="runs/log-batch")) < 12
    assert not azureml.requests(path="log-batch-async")


def test_datasets_are_kept_where_the_service_does_not_take_them(azureml: AzureMl) -> None:
    code = """
        import pandas as pd
        mlflow.set_experiment("datasets")
        data = mlflow.data.from_pandas(pd.DataFrame({"x": range(9)}), name="nine")
        with mlflow.start_run() as run:
            mlflow.log_input(data, context="training", tags={"split": "a"})
        (given,) = client.get_run(run.info.run_id).inputs.dataset_inputs
        found["name"], found["tags"] = given.dataset.name, {t.key: t.value for t in given.tags}
        found["schema"] = given.dataset.schema
        """
    expected = {
        "name": "nine",
        "tags": {"mlflow.data.context": "training", "split": "a"},
        "schema": ('{"mlflow_colspec": [{"type": "long", "name": "x", "required": true}]}'),
    }
    assert _ours(azureml, code) == expected
    azureml.fault("status", status=404, path="runs/log-inputs")
    assert _ours(azureml, code) == expected


def test_traces_do_not_break_a_run_and_warn_once(azureml: AzureMl) -> None:
    done = azureml.run(
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
""",
        environment={"MLFLOW_DISABLE_TELEMETRY": "true"},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] {'m': 1.0}"
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    warned = [line for line in lines if "trace" in line.lower()]
    assert len(warned) == 1, warned
    assert "Azure ML takes no traces" in warned[0]
