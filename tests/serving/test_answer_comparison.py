"""The answers of an endpoint beside what the model itself predicts for the same request."""

import io
import json
import sys
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from dbx_aml.serving.answer_comparison import compare_answers
from dbx_aml.serving.local_server import LocalEndpoint
from dbx_aml.serving.predict_script import main

EXAMPLE = pd.DataFrame({"x": [1.0, 2.0]})


def test_the_parameters_of_a_request_reach_the_model_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    class Times(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["x"].to_numpy() * params["factor"]

    class FakeEndpoint:
        input_example = None

        def score(self, rows: Any) -> list[float]:
            return [10.0]

        def predict(self, requests: list[Any]) -> Any:
            monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(requests)))
            main(str(tmp_path / "model"), str(tmp_path / "answers.json"))
            return json.loads((tmp_path / "answers.json").read_text())

    signature = infer_signature(EXAMPLE, EXAMPLE["x"].to_numpy(), params={"factor": 1})
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=Times(), signature=signature, pip_requirements=["mlflow"]
    )
    request = {"input_data": {"columns": ["x"], "data": [[2.0]]}, "params": {"factor": 5}}
    endpoint = cast(LocalEndpoint, FakeEndpoint())
    (comparison,) = compare_answers(endpoint, {"rows.json": request})
    assert (comparison.rows, comparison.difference) == (1, "")
