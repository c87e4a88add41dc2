"""The search of logged models with MLflow 3.0, whose filter knows no datasets."""

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchLoggedModelsUtils

from dbx_aml.tracking.azureml.logged_model_search import LoggedModelSearch

MODELS = [SimpleNamespace(metrics=[], params={"alpha": text}) for text in ("0.5", "1")]


@pytest.fixture
def mlflow_3_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two functions of runtime 17.3 that have no parameter for datasets."""
    matches_clause = SearchLoggedModelsUtils._does_logged_model_match_clause.__func__

    def match_clause(cls: Any, model: Any, condition: Any) -> Any:
        return matches_clause(cls, model, condition)

    def filter_models(cls: Any, models: Any, filter_string: Any = None) -> Any:
        parsed = cls.parse_search_filter(filter_string)
        return [
            model
            for model in models
            if all(cls._does_logged_model_match_clause(model, clause) for clause in parsed)
        ]

    for name, function in {
        "_does_logged_model_match_clause": match_clause,
        "filter_logged_models": filter_models,
    }.items():
        monkeypatch.setattr(SearchLoggedModelsUtils, name, classmethod(function))


def test_logged_models_are_filtered_by_their_params(mlflow_3_0: None) -> None:
    assert LoggedModelSearch.filter_logged_models(MODELS, "params.alpha = '0.5'") == MODELS[:1]


def test_a_search_by_datasets_is_refused_with_a_reason(mlflow_3_0: None) -> None:
    with pytest.raises(MlflowException, match="by datasets must have a newer MLflow: got 3"):
        LoggedModelSearch.filter_logged_models(MODELS, None, [{"dataset_name": "flowers"}])
