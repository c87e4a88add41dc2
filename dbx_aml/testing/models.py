"""Log and register the model of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from types import FunctionType, ModuleType
from typing import Any

from dbx_aml._common.errors import ArgumentError

# MLflow's flavors that have another name than their library.
_FLAVORS = {"pyspark": "spark", "torch": "pytorch"}


def register_test_model(
    model: Any, name: str, input_example: Any, *, test_module: ModuleType
) -> str:
    """Log a model in a new run, register it, and return its URI.

    Args:
        model: Fitted model of a library that MLflow has a flavor for, for example scikit-learn;
            or a `PythonModel`; or a function from a pandas data frame to predictions.
        name: Registered model, for example "delay".
        input_example: First rows as a pandas data frame, for the signature; None for no signature.
        test_module: Module of the test. Its functions and classes are stored in the model, because
            Spark's workers cannot import it.

    Returns:
        For example "models:/delay/1".

    Raises:
        ArgumentError: MLflow has no flavor for the model.
    """
    import mlflow
    import mlflow.pyfunc

    if isinstance(model, FunctionType):
        model = _python_model(model)
    if isinstance(model, mlflow.pyfunc.PythonModel):
        flavor, argument = mlflow.pyfunc, {"python_model": model}
    else:
        flavor = _find_flavor(model)
        # Each flavor has its own name for the model, for example "sk_model".
        argument = {next(iter(signature(flavor.log_model).parameters)): model}
        if flavor.__name__ == "mlflow.sklearn":
            # MLflow's own default, skops, refuses functions and classes of the test.
            argument["serialization_format"] = "cloudpickle"
    with mlflow.start_run(nested=True), _stored_by_value(test_module):
        logged = flavor.log_model(
            **argument,
            name="model",
            input_example=input_example,
            # MLflow would start a process to find the packages that the model imports.
            pip_requirements=flavor.get_default_pip_requirements(),
        )
    version = mlflow.register_model(logged.model_uri, name)
    return f"models:/{version.name}/{version.version}"


def _python_model(function: Callable[[Any], Any]) -> Any:
    """Return a `PythonModel` that predicts with a function."""
    import mlflow.pyfunc

    class FunctionModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return function(model_input)

    return FunctionModel()


def _find_flavor(model: Any) -> Any:
    """Return MLflow's module for the library of a model or of its base class."""
    libraries = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    for library in dict.fromkeys(libraries):
        try:
            flavor = import_module(f"mlflow.{_FLAVORS.get(library, library)}")
        except ImportError:
            continue
        if hasattr(flavor, "log_model"):
            return flavor
    raise ArgumentError(
        "model must be of a library that MLflow has a flavor for, a PythonModel or a function: "
        f"got {type(model).__name__!r} of {libraries[0]!r}"
    )


@contextmanager
def _stored_by_value(module: ModuleType) -> Iterator[None]:
    """Store functions and classes of a module in the models that the block logs."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
