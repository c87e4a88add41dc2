"""Models in Azure ML's own scoring server on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pytest
import urllib3
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

from dbx_aml._common.deadline import poll_until
from dbx_aml._common.errors import (
    ArgumentError,
    ModelNotFoundError,
    ServingError,
    UnsolvableRequirementsError,
)
from dbx_aml._common.paths import sha256_of_folder
from dbx_aml._common.programs import is_process_running
from dbx_aml.local import pinned_environment
from dbx_aml.serving.answer_comparison import compare_answers
from dbx_aml.serving.local_server import LocalEndpoint, try_endpoint
from tests.support.child_process import clean_environment
from tests.support.served_models import FLIGHTS, REQUIREMENTS, save_served_model

TARGET = np.array([30.0, 70.0, 120.0])
COLUMNS = ["distance", "hour"]
ROWS = [[200.0, 7], [500.0, 12]]
SPLIT = {"columns": COLUMNS, "index": [0, 1], "data": ROWS}
REFUSED = {
    "message": "An unexpected error occurred in scoring script. Check the logs for more info."
}
NO_INPUT = {"message": "A value is not provided for the 'input_data' parameter."}


def post(endpoint: LocalEndpoint, body: Any) -> tuple[int, Any]:
    """Send a request with this body; return the status and the answer."""
    response = urllib3.PoolManager().request(
        "POST",
        endpoint.url,
        body=body if isinstance(body, bytes) else json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    return response.status, response.json()


@pytest.fixture(scope="module", params=["signature", "example", "neither"])
def contract(request, tmp_path_factory) -> Iterator[tuple[bool, LocalEndpoint]]:
    """A model's endpoint, and whether the model has a signature or an input example."""
    folder = tmp_path_factory.mktemp(request.param)
    options: dict[str, Any] = {}
    if request.param == "example":
        options = {"signature": False, "input_example": FLIGHTS}
    example = FLIGHTS if request.param == "signature" else None

    def predict(rows):
        # The prediction is wrong if the columns change places.
        return (rows["distance"] * 10 + rows["hour"]).to_numpy()

    model = save_served_model(folder / "model", predict, example, **options)
    with try_endpoint(model) as endpoint:
        yield request.param != "neither", endpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "with_columns", "without"),
    [
        ({"input_data": SPLIT}, (200, [2007.0, 5012.0]), (200, [2007.0, 5012.0])),
        (
            {"input_data": {"columns": COLUMNS, "data": ROWS}},
            (200, [2007.0, 5012.0]),
            (500, REFUSED),
        ),
        (
            {
                "input_data": {
                    "columns": COLUMNS[::-1],
                    "index": [0],
                    "data": [[7, 200.0]],
                }
            },
            (200, [2007.0]),
            (200, [2007.0]),
        ),
        (
            {
                "input_data": {
                    "columns": ["extra", *COLUMNS],
                    "index": [0],
                    "data": [["x", 200.0, 7]],
                }
            },
            (200, [2007.0]),
            (200, [2007.0]),
        ),
        (
            {"input_data": {"columns": ["distance"], "index": [0], "data": [[200.0]]}},
            (500, REFUSED),
            (500, REFUSED),
        ),
        (
            {"input_data": {"columns": COLUMNS, "index": [0], "data": [["far", 7]]}},
            (500, REFUSED),
            (500, REFUSED),
        ),
        (
            {"input_data": [{"distance": 200.0, "hour": 7}]},
            (500, REFUSED),
            (500, REFUSED),
        ),
        ({"input_data": ROWS}, (500, REFUSED), (500, REFUSED)),
        ({"dataframe_split": SPLIT}, (400, NO_INPUT), (400, NO_INPUT)),
    ],
    ids=[
        "columns, index and data",
        "no index",
        "other order",
        "one column more",
        "a column missing",
        "text for a number",
        "records",
        "lists",
        "no input_data",
    ],
)
def test_status_and_body_are_those_of_azure_mls_own_script(
    contract, body, with_columns, without
) -> None:
    has_columns, endpoint = contract
    assert post(endpoint, body) == (with_columns if has_columns else without)


@pytest.mark.slow
def test_what_is_not_json_answers_400(contract) -> None:
    status, answer = post(contract[1], b"{oops")
    assert status == 400
    assert answer["message"].startswith("POST body could not be decoded as JSON")


@pytest.fixture(scope="module")
def nested_model(tmp_path_factory) -> str:
    """A model with times, texts and nested values, which prints and writes into its folder."""
    example = pd.DataFrame(
        {
            "at": pd.to_datetime(["2024-01-01 10:00:00.123456", "2024-01-02 00:00:00.5"]),
            "x": [0.1 + 0.2, 1.0],
            "nested": [{"tags": ["a", "b"]}, {"tags": ["c"]}],
            "text": ["a", None],
            "count": [1, 2],
        }
    )

    class Nested(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self.folder = Path(context.artifacts["notes"])

        def predict(self, context, model_input, params=None):
            print("a model that prints")  # noqa: T201 - it is what is tested
            (self.folder.parent / "written.txt").write_text("by the model")
            return pd.DataFrame(
                {
                    "next": model_input["at"] + pd.Timedelta(days=1),
                    "tags": [len(value["tags"]) for value in model_input["nested"]],
                    "half": model_input["x"] / 2,
                    "is_missing": model_input["text"].isna(),
                }
            )

    folder = tmp_path_factory.mktemp("nested")
    notes = folder / "notes.txt"
    notes.write_text("notes")
    output = pd.DataFrame(
        {
            "next": example["at"], "tags": [1, 2], "half": [0.5, 0.5], "is_missing": [True, False]
        }
    )  # fmt: skip
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=Nested(),
        artifacts={"notes": str(notes)},
        signature=infer_signature(example, output),
        input_example=example,
        pip_requirements=REQUIREMENTS,
    )
    return str(folder / "model")


@pytest.fixture(scope="module")
def nested_endpoint(nested_model) -> Iterator[LocalEndpoint]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_CLIENT_SECRET", "secret")
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with try_endpoint(nested_model) as endpoint:
            yield endpoint


@pytest.mark.slow
def test_times_nested_values_and_a_frame_as_output_keep_their_values(nested_endpoint) -> None:
    example = nested_endpoint.input_example
    example["x"] = [0.1 + 0.2, 1.0]
    answer = nested_endpoint.score(example)
    assert [list(record.values()) for record in answer] == [
        ["2024-01-02T10:00:00.123456", 2, 0.15000000000000002, False],
        ["2024-01-03T00:00:00.500000", 1, 0.5, True],
    ]
    assert list(answer[0]) == ["next", "tags", "half", "is_missing"]


@pytest.mark.slow
def test_milliseconds_are_times_and_a_fraction_is_no_whole_number(nested_endpoint) -> None:
    columns = ["at", "x", "nested", "text", "count"]
    row = [1704103200123, 1.0, {"tags": []}, "a", 1.0]
    (answer,) = nested_endpoint.score({"columns": columns, "data": [row]})
    assert answer["next"] == "2024-01-02T10:00:00.123000"
    with pytest.raises(ServingError, match=r"500; ValueError: column 'count' must hold whole"):
        nested_endpoint.score({"columns": columns, "data": [[*row[:4], 1.5]]})


@pytest.mark.slow
def test_the_server_listens_on_one_address_and_knows_no_settings_of_this_program(
    nested_endpoint,
) -> None:
    port = urllib3.util.parse_url(nested_endpoint.url).port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    variables = Path(f"/proc/{nested_endpoint._process.pid}/environ").read_bytes().split(b"\0")
    names = {variable.partition(b"=")[0].decode() for variable in variables}
    assert {"AZUREML_MODEL_DIR", "MLFLOW_MODEL_FOLDER", "PATH"} <= names
    assert not names & {"AZURE_CLIENT_SECRET", "DBX_AML_LOCAL_ROOT", "MLFLOW_TRACKING_URI"}
    values = dict(variable.split(b"=", 1) for variable in variables if variable)
    assert values[b"AZUREML_MODEL_DIR"].endswith(b"/models/model/1")


@pytest.mark.slow
def test_what_the_model_prints_is_in_the_log_and_what_it_writes_is_not_in_its_source(
    nested_model, nested_endpoint
) -> None:
    before = sha256_of_folder(Path(nested_model))
    nested_endpoint.score(nested_endpoint.input_example)
    assert "a model that prints" in nested_endpoint.log
    assert sha256_of_folder(Path(nested_model)) == before


@pytest.mark.slow
def test_the_answers_are_compared_with_those_of_pyfunc_predict(
    nested_endpoint, monkeypatch
) -> None:
    row = ["2024-05-01", 3, {"tags": ["d"]}, None, 4]
    rows = {"columns": ["at", "x", "nested", "text", "count"], "data": [row]}
    example, file = compare_answers(nested_endpoint, {"rows.json": rows})
    assert (example.input, example.rows, example.difference) == ("input example", 2, "")
    assert (file.input, file.rows, file.difference) == ("rows.json", 1, "")
    assert 0 < file.milliseconds < 1000
    monkeypatch.setattr(nested_endpoint, "predict", lambda inputs: [[{"half": 1}], [{"half": 2}]])
    example, _ = compare_answers(nested_endpoint, {"rows.json": rows})
    assert example.difference.startswith("row 1: the endpoint answers {")
    assert example.difference.endswith('pyfunc.predict returns {"half": 1}')


@pytest.mark.slow
def test_a_scikit_learn_model_of_a_registry_answers_as_here(mlflow_store) -> None:
    model = LinearRegression().fit(FLIGHTS, TARGET)
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name="delay",
        input_example=FLIGHTS,
        pip_requirements=REQUIREMENTS,
    )
    mlflow.MlflowClient().set_registered_model_alias("delay", "champion", "1")
    with try_endpoint("models:/delay@champion", registry=mlflow_store) as endpoint:
        assert endpoint.model_uri == "models:/delay/1"
        assert endpoint.url.startswith("http://127.0.0.1:")
        assert endpoint.model_python == endpoint.environment.python_version
        assert endpoint.score(FLIGHTS) == model.predict(FLIGHTS).tolist()
        assert 0 < endpoint.start_s < 120
        process_id = endpoint._process.pid
        assert is_process_running(process_id)
    assert "Worker with pid" in endpoint.log
    assert not is_process_running(process_id)
    with pytest.raises(ServingError, match="got no answer"):
        endpoint.score(FLIGHTS)
    with pytest.raises(ModelNotFoundError, match=r"must exist: got 'models:/delay@none'"):
        try_endpoint("models:/delay@none", registry=mlflow_store).__enter__()


@pytest.mark.slow
def test_eight_clients_of_a_lightgbm_model_get_their_own_answers(tmp_path) -> None:
    generator = np.random.default_rng(7)
    rows = pd.DataFrame(generator.normal(size=(800, 3)), columns=["a", "b", "c"])
    model = lightgbm.LGBMRegressor(n_estimators=20, n_jobs=1, verbose=-1)
    model.fit(rows, rows["a"] * 3 + rows["b"])
    mlflow.lightgbm.save_model(
        model,
        tmp_path / "model",
        input_example=rows[:3],
        signature=infer_signature(rows, model.predict(rows)),
        pip_requirements=REQUIREMENTS,
    )
    expected = model.predict(rows).tolist()

    def ask(client: int) -> list[float]:
        own = range(client * 100, client * 100 + 100)
        return [value for row in own for value in endpoint.score(rows[row : row + 1])]

    with try_endpoint(str(tmp_path / "model")) as endpoint, ThreadPoolExecutor(8) as pool:
        answers = [value for values in pool.map(ask, range(8)) for value in values]
    assert answers == expected


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_with_its_own_error_and_the_log(tmp_path) -> None:
    def load() -> None:
        raise ValueError("no weights here")

    model = save_served_model(tmp_path / "model", lambda rows: rows["x"], load=load)
    with pytest.raises(ServingError) as caught:
        try_endpoint(model).__enter__()
    assert str(caught.value).endswith("it ended with status 3; ValueError: no weights here")
    assert "Worker failed to boot" in caught.value.log


@pytest.mark.slow
def test_a_server_that_is_not_ready_in_time_is_ended_and_its_log_shown(tmp_path) -> None:
    model = save_served_model(
        tmp_path / "model", lambda rows: rows["x"], load=lambda: time.sleep(600)
    )
    children = set(running_children())
    with pytest.raises(ServingError, match=r"must answer within 0\.5 s: it does not") as caught:
        try_endpoint(model, start_timeout_s=0.5).__enter__()
    assert isinstance(caught.value.log, str)
    assert set(running_children()) == children


@pytest.mark.slow
def test_the_server_ends_with_a_killed_program(tmp_path) -> None:
    model = save_served_model(tmp_path / "model", lambda rows: rows["x"])
    program = f"""
        import time
        from dbx_aml import try_endpoint
        with try_endpoint({model!r}) as endpoint:
            print(endpoint._process.pid, flush=True)
            time.sleep(600)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        env={
            **clean_environment(),
            "PYTHONPATH": os.pathsep.join(sys.path),
            # The killed program leaves its folder.
            "TMPDIR": str(tmp_path),
        },
        text=True,
    )
    with child:
        assert child.stdout is not None
        process_id = int(child.stdout.readline())
        child.kill()
    assert poll_until(lambda: not is_process_running(process_id), 10, 0.05)


def test_a_port_that_is_taken_is_refused_at_once(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ArgumentError, match=f"port must be free: got {port}: Address already"):
            try_endpoint(str(tmp_path), port=port).__enter__()


def test_requirements_that_contradict_the_server_are_refused_before_it_starts(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(
        pinned_environment, "environments_folder", lambda: tmp_path / "environments"
    )
    model = save_served_model(tmp_path / "model", lambda rows: rows["x"])
    (Path(model) / "requirements.txt").write_text("mlflow\npydantic<2\n")
    with pytest.raises(UnsolvableRequirementsError, match=r"you require pydantic<2"):
        try_endpoint(model).__enter__()
    assert not (tmp_path / "environments").exists()


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(ModelNotFoundError):
        try_endpoint(str(tmp_path)).__enter__()


def running_children() -> list[int]:
    """Return the ids of the running processes that this process started."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            children.append(int(folder.name))
    return children
