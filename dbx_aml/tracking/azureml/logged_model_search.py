"""Filter and order of logged models by their metrics, as MLflow's own server has them.

MLflow's client filters by one value of a metric. Its server filters by each of them, and orders by
the latest.
"""

import inspect
from types import SimpleNamespace
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchLoggedModelsUtils


class LoggedModelSearch(SearchLoggedModelsUtils):  # type: ignore[misc,unused-ignore]
    """MLflow's search in a list of logged models, for models with several values of a metric."""

    @classmethod
    def filter_logged_models(
        cls, models: list[Any], filter_string: str | None = None, datasets: Any = None
    ) -> list[Any]:
        """Return the models that match a filter and have a metric of one of the datasets."""
        matching = super().filter_logged_models
        # MLflow 3.0 takes no datasets here.
        if datasets and "datasets" not in inspect.signature(matching).parameters:
            raise MlflowException.invalid_parameter_value(
                f"search of logged models by datasets must have a newer MLflow: got "
                f"{mlflow.__version__}; search without datasets, or use a newer runtime"
            )
        return list(matching(models, filter_string, *([datasets] if datasets else [])))

    @classmethod
    def _does_logged_model_match_clause(
        cls, model: Any, condition: dict[str, Any], *datasets: Any
    ) -> bool:
        matches = super()._does_logged_model_match_clause
        if condition["type"] != "metric":
            return bool(matches(model, condition, *datasets))
        return any(
            matches(_with_metrics([metric]), condition, *datasets) for metric in model.metrics
        )

    @classmethod
    def _apply_reversor_for_logged_model(cls, model: Any, order_by: Any) -> Any:
        if "." in order_by.field_name:
            # Of values with one time, MLflow's client takes the first.
            model = _with_metrics(sorted(model.metrics, key=lambda item: item.step, reverse=True))
        return super()._apply_reversor_for_logged_model(model, order_by)


def _with_metrics(metrics: list[Metric]) -> Any:
    """Return what MLflow's search reads of a model with some metrics."""
    return SimpleNamespace(metrics=metrics)
