"""Predict with a model in its own environment, as the program that logged the model does.

    python predict_script.py <folder of the model> <file for the answers>

The standard input is a list of JSON values: each is a scoring request with `input_data` and maybe
`params`, or null for the input example of the model. The file gets the list of predictions. The
scoring server's answers are compared with them, so this file shares no code with the scoring
script.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.types import DataType
from mlflow.utils.proto_json_utils import (
    NumpyEncoder,
    _get_jsonable_obj,
    dataframe_from_parsed_json,
)


def to_model_input(input_data: Any, model: Any) -> Any:
    """Return the frame or the array of a scoring request."""
    if isinstance(input_data, list):
        return np.asarray(input_data)
    if not isinstance(input_data, dict) or "data" not in input_data:
        return input_data
    frame = dataframe_from_parsed_json(input_data, "split")
    schema = model.metadata.get_input_schema()
    if schema is None or not schema.has_input_names() or schema.is_tensor_spec():
        return frame
    for spec in schema.inputs:
        # pandas writes times as milliseconds.
        if spec.type == DataType.datetime and frame.get(spec.name, pd.Series()).dtype.kind in "if":
            frame[spec.name] = pd.to_datetime(frame[spec.name], unit="ms")
    content = {"columns": list(frame), "data": frame.to_numpy(dtype=object).tolist()}
    return dataframe_from_parsed_json(content, "split", schema)


def main(model_folder: str, answers_file: str) -> None:
    """Write the predictions for the requests on the standard input."""
    model = mlflow.pyfunc.load_model(model_folder)
    answers = []
    for request in json.load(sys.stdin):
        if request is None:
            model_input = model.metadata.load_input_example(model_folder)
        else:
            model_input = to_model_input(request["input_data"], model)
        predictions = model.predict(model_input, params=(request or {}).get("params"))
        answers.append(_get_jsonable_obj(predictions, pandas_orient="records"))
    Path(answers_file).write_text(json.dumps(answers, cls=NumpyEncoder), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
