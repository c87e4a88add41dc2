"""Identifiers and metrics of logged models in documents."""

import pytest
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.logged_model_document import (
    latest_per_series,
    model_id_from_key,
    new_model_id,
    split_model_id,
)


@pytest.mark.parametrize("run_id", ["2b7d4c8e-9f11-4d5a-8c3b-1a2b3c4d5e6f", "red_owl_x1y2", "abc"])
def test_a_model_id_holds_its_run_and_the_key_of_its_document(run_id: str) -> None:
    model_id = new_model_id(run_id)

    found_run_id, key = split_model_id(model_id)

    assert found_run_id == run_id
    assert model_id_from_key(run_id, key) == model_id


def test_an_id_of_another_server_is_one_clear_error() -> None:
    with pytest.raises(MlflowException, match="'m-123' is not in Azure ML"):
        split_model_id("m-123")


def test_the_latest_value_of_each_metric_and_dataset_is_kept() -> None:
    values = [
        ["auc", 0.5, 10, 0, "train", "d1", "r"],
        ["auc", 0.6, 20, 1, "train", "d1", "r"],
        ["auc", 0.4, 15, 0, "test", "d2", "r"],
        ["auc", 0.1, 5, 0, "train", "d1", "r"],
    ]
    assert latest_per_series(values) == [
        ["auc", 0.6, 20, 1, "train", "d1", "r"],
        ["auc", 0.4, 15, 0, "test", "d2", "r"],
    ]
