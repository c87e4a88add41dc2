"""Models to score with, and tables for them: small, exact, and made where a test needs them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd

# Spark's workers cannot import the tests: functions of this module travel inside the models.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def save_model(
    folder: Path, predict: Callable[[pd.DataFrame], Any], example: pd.DataFrame, **signature: Any
) -> str:
    """Save a pyfunc model that predicts with `predict`, a function made inside a test.

    The signature is inferred from the example and its prediction; `inputs` and `outputs`
    replace a part of it.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature, infer_signature

    class Toy(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return predict(model_input)

    inferred = infer_signature(example, predict(example))
    inputs = signature.get("inputs", inferred.inputs)
    outputs = signature.get("outputs", inferred.outputs)
    path = folder / f"model_{len(list(folder.glob('model_*')))}"
    mlflow.pyfunc.save_model(
        path,
        python_model=Toy(),
        signature=ModelSignature(inputs, outputs) if inputs or outputs else None,
        pip_requirements=["mlflow"],
    )
    return str(path)


def weighted_sum(rows: pd.DataFrame) -> pd.Series:
    """The model of most tests: wrong at once if x and y change places."""
    return rows["x"] * 10 + rows["y"]


def choosy_sum(rows: pd.DataFrame) -> pd.Series:
    """`weighted_sum` that refuses a batch with a missing or negative x, as real models do."""
    if rows["x"].isna().any():
        raise ValueError("x contains NaN")
    if (rows["x"] < 0).any():
        raise ValueError("x is negative")
    return rows["x"] * 10 + rows["y"]


XY = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]})
