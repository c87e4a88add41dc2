"""The model that the tests of the store log."""

from collections.abc import Callable
from typing import Any

import mlflow
import pandas as pd
import pytest

FRAME = pd.DataFrame({"x": [1.0, 2.0]})


@pytest.fixture
def log_model() -> Callable[..., Any]:
    """A function that logs a model which doubles its input, and returns MLflow's model info."""

    class Doubles(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return model_input * 2

    def log(name: str = "model", **options: Any) -> Any:
        return mlflow.pyfunc.log_model(
            name=name, python_model=Doubles(), pip_requirements=[], **options
        )

    return log


def predict(model_uri: str) -> list[float]:
    """Return the predictions of a model for `FRAME`."""
    values: list[float] = mlflow.pyfunc.load_model(model_uri).predict(FRAME)["x"].tolist()
    return values
