"""Models for Azure ML's scoring server: all have the requirements of one environment."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

# The versions of this environment, which writes the models.
REQUIREMENTS = [
    f"{name}=={version(name)}"
    for name in ("mlflow", "scikit-learn", "lightgbm", "pandas", "numpy", "cloudpickle")
]
FLIGHTS = pd.DataFrame({"distance": [200.0, 500.0, 900.0], "hour": [7, 12, 18]})


def save_served_model(
    folder: Path,
    predict: Callable[[pd.DataFrame], Any],
    example: pd.DataFrame | None = None,
    *,
    load: Callable[[], None] = lambda: None,
    **options: Any,
) -> str:
    """Save a pyfunc model that predicts with a function made inside a test; return its path.

    Args:
        folder: Folder for the model.
        predict: Prediction.
        example: Input for an inferred signature.
        load: Function that the model calls when it is loaded.
        options: Further options of MLflow's `save_model`.
    """
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    class Toy(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            load()

        def predict(self, context, model_input, params=None):
            return predict(model_input)

    if example is not None:
        options.setdefault("signature", infer_signature(example, predict(example)))
    mlflow.pyfunc.save_model(folder, python_model=Toy(), pip_requirements=REQUIREMENTS, **options)
    return str(folder)
