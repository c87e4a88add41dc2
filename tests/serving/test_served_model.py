"""The registered version that a deployment serves, and the row that it must score first."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

from dbx_aml.models.registries import Registry
from dbx_aml.serving.scoring_request import request_body
from dbx_aml.serving.served_model import ServedModel

ARRAY = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("example", "input_data"),
    [
        (pd.DataFrame({"x": [1.5, 2.5]}), {"columns": ["x"], "index": [0], "data": [[1.5]]}),
        (ARRAY, [[1.0, 2.0]]),
        # The arrays of one input may have different lengths.
        ({"a": ARRAY, "b": np.array([5.0])}, {"a": ARRAY.tolist(), "b": [5.0]}),
        (["text"], None),
        (None, None),
    ],
)
def test_the_example_of_a_model_is_a_request_for_a_frame_and_for_arrays(
    tmp_path: Path, example: Any, input_data: Any
) -> None:
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=lambda model_input: [0.0],
        input_example=example,
        pip_requirements=["mlflow"],
    )
    model = ServedModel(
        name="delay",
        version="1",
        run_id="",
        copied_from="",
        registry=Registry(uri="databricks-uc", tracking_uri="databricks"),
        folder=tmp_path / "model",
        metadata=Model.load(str(tmp_path / "model")),
    )
    row = model.example_row()
    assert (row is None) == (input_data is None)
    if row is not None:
        assert json.loads(request_body(row)) == {"input_data": input_data}
