"""Scoring script of Azure ML's inference server for an MLflow model.

The server loads this file by its path, in the environment of the model, where this package is not
installed. Azure ML has its own script for a model without code. This script gives the same
answers to the same requests, but numbers keep every digit, a time may be a text or the milliseconds
that pandas writes, and a fraction is refused where the model takes whole numbers.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from inference_schema.parameter_types.abstract_parameter_type import AbstractParameterType
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema
from mlflow.types import DataType
from mlflow.utils.proto_json_utils import (
    NumpyEncoder,
    _get_jsonable_obj,
    cast_df_types_according_to_schema,
)

log = logging.getLogger("azmlinfsrv.score_script")


class AnyParameterType(AbstractParameterType):  # type: ignore[misc]
    """A value that the model takes as the request has it."""

    def __init__(self) -> None:
        super().__init__(None)

    def deserialize_input(self, input_data: Any) -> Any:
        """Return the value."""
        return input_data

    def input_to_swagger(self) -> dict[str, Any]:
        """Return the description of any object."""
        return {"type": "object", "example": {}}


class SplitFrameParameterType(PandasParameterType):  # type: ignore[misc]
    """A frame with named columns: an object with `columns`, `data` and maybe `index`."""

    def deserialize_input(self, input_data: Any) -> Any:
        """Return the frame, with the types of the signature or else of the input example."""
        frame = pd.DataFrame(input_data["data"], input_data.get("index"), input_data["columns"])
        if schema is None:
            types = self.sample_input.dtypes
            return frame.astype({name: types[name] for name in frame if name in types})
        for spec in schema.inputs:
            if spec.name not in frame:
                continue
            column = frame[spec.name]
            if spec.type == DataType.datetime:
                times = [
                    pd.Timestamp(value, unit="ms" if isinstance(value, (int, float)) else None)
                    for value in column
                ]
                frame[spec.name] = pd.Series(times, column.index)
            elif (
                spec.type in (DataType.integer, DataType.long)
                and column.dtype.kind == "f"
                and not (column == column.round()).all()
            ):
                raise ValueError(f"column {spec.name!r} must hold whole numbers")
        return cast_df_types_according_to_schema(frame, schema)


def find_model_folder() -> Path:
    """Return the folder of the MLmodel file below the folder that Azure ML mounts."""
    root = Path(os.environ["AZUREML_MODEL_DIR"])
    if os.environ.get("MLFLOW_MODEL_FOLDER"):
        return root / os.environ["MLFLOW_MODEL_FOLDER"]
    files = sorted(root.rglob("MLmodel"), key=lambda file: len(file.parts))
    return files[0].parent if files else root


def input_sample() -> Any:
    """Return an example of the model's input, None where the model has none with named columns."""
    example = model.metadata.saved_input_example_info
    if example and example["type"] == "dataframe":
        return model.metadata.load_input_example(str(model_folder))
    return sample_of_schema(schema)


def sample_of_schema(model_schema: Any) -> Any:
    """Return a row or arrays of zeros for a schema; None without a schema or without names."""
    if model_schema is None:
        return None
    if model_schema.is_tensor_spec():
        arrays = {
            spec.name: np.zeros([1 if size == -1 else size for size in spec.shape], spec.type)
            for spec in model_schema.inputs
        }
        return arrays if model_schema.has_input_names() else arrays[None]
    if not model_schema.has_input_names():
        return None
    # Without a row, the server's description of a column of times fails.
    columns: dict[str, Any] = {
        spec.name: np.zeros(1, spec.type.to_numpy()) if isinstance(spec.type, DataType) else [{}]
        for spec in model_schema.inputs
    }
    return pd.DataFrame(columns)


def parameter_type(sample: Any, frame_type: type[PandasParameterType], **options: Any) -> Any:
    """Return the type that reads a value like the sample from JSON, and describes it."""
    if isinstance(sample, pd.DataFrame):
        return frame_type(sample, enforce_shape=False, **options)
    if isinstance(sample, dict):
        return StandardPythonParameterType(
            {name: NumpyParameterType(value, enforce_shape=False) for name, value in sample.items()}
        )
    if isinstance(sample, np.ndarray):
        return NumpyParameterType(sample, enforce_shape=False)
    return AnyParameterType()


def to_model_input(input_data: Any) -> Any:
    """Return what a model without a sample gets: a frame, an array or named arrays."""
    if isinstance(input_data, list):
        return np.asarray(input_data)
    if not isinstance(input_data, dict):
        return input_data
    if {"columns", "index", "data"} <= set(input_data):
        return pd.DataFrame(input_data["data"], input_data["index"], input_data["columns"])
    return {name: np.asarray(value) for name, value in input_data.items()}


def create_collectors() -> tuple[Any, ...]:
    """Return Azure ML's collectors of inputs and outputs; none unless the deployment asks."""
    if os.environ.get("ENABLE_MDC", "").lower() in ("", "0", "false"):
        return ()
    from azureml.ai.monitoring import Collector

    def report(error: Exception) -> None:
        log.error("Data collection failed: %s", error)

    return tuple(
        Collector(name=name, on_error=report) for name in ("model_inputs", "model_outputs")
    )


def collect(collector: Any, values: Any, context: Any) -> Any:
    """Pass inputs or predictions to Azure ML's collection; return what connects the two.

    A failure is in the log only, for the model has its answer.
    """
    try:
        frame = pd.DataFrame(values)
    except ValueError as err:
        log.error("Data collection takes tables only: %s", err)
        return context
    return collector.collect(frame, context)


model_folder = find_model_folder()
# As Azure ML's own script does, so that a model that cannot be loaded ends the server.
model = mlflow.pyfunc.load_model(str(model_folder))
schema = model.metadata.get_input_schema()
collectors = create_collectors()


def init() -> None:
    """Do nothing: the model is loaded with this file."""


@input_schema(  # type: ignore[untyped-decorator]
    "input_data", parameter_type(input_sample(), SplitFrameParameterType, orient="split")
)
@input_schema("params", AnyParameterType(), optional=True)  # type: ignore[untyped-decorator]
@output_schema(  # type: ignore[untyped-decorator]
    parameter_type(
        sample_of_schema(model.metadata.get_output_schema()), PandasParameterType, orient="records"
    )
)
def run(input_data: Any, params: Any = None) -> Any:
    """Return the predictions for one request, a frame as a list of records.

    Args:
        input_data: Value of the request's `input_data`.
        params: Value of the request's `params`, which the model's signature must name.
    """
    if not isinstance(input_data, pd.DataFrame):
        input_data = to_model_input(input_data)
    predictions = model.predict(input_data, params=params)
    if collectors:
        inputs, outputs = collectors
        collect(outputs, predictions, collect(inputs, input_data, None))
    # The server's own encoder knows neither numpy nor times.
    jsonable = _get_jsonable_obj(predictions, pandas_orient="records")
    return json.loads(json.dumps(jsonable, cls=NumpyEncoder))
