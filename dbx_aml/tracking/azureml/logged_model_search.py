"""Filter and order of logged models by their metrics, as MLflow's own server has them.

MLflow's client filters by one value of a metric. Its server filters by each of them, and orders by
the latest.
"""

from types import SimpleNamespace
from typing import Any

from mlflow.entities import Metric
from mlflow.utils.search_utils import SearchLoggedModelsUtils


class LoggedModelSearch(SearchLoggedModelsUtils):  # type: ignore[misc,unused-ignore]
    """MLflow's search in a list of logged models, for models with several values of a metric."""

    @classmethod
    def _does_logged_model_match_clause(
        cls, model: Any, condition: dict[str, Any], datasets: Any = None
    ) -> bool:
        matches = super()._does_logged_model_match_clause
        if condition["type"] != "metric":
            return bool(matches(model, condition, datasets))
        return any(
            matches(_with_metrics([metric]), condition, datasets) for metric in model.metrics
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
