"""Identifiers and metrics of logged models in documents."""

import math
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from dbx_aml.tracking.azureml.logged_model_document import (
    check_document,
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


DOCUMENT = {"name": "m", "folder": "m", "status": "READY", "created": 1, "updated": 2}


def test_a_document_as_this_package_writes_it_is_accepted() -> None:
    check_document(DOCUMENT)
    check_document(
        {
            **DOCUMENT,
            "folder": "m-0a1b2c3d",
            "tags": {"a": "line\nline"},
            "params": {"b": "1"},
            "type": "agent",
            "in_placeholder_run": True,
            "deleted": 3,
            "metrics": [["auc", math.nan, 1, -1, "", "", "r"], ["n", 3, 1, 0, "train", "d", "r"]],
            "key of a later release": [1],
        }
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": "../../other-run/artifacts/model"},
        {"folder": "/etc"},
        {"folder": ""},
        {"folder": None},
        {"status": "ABSOLUTELY"},
        {"status": ["READY"]},
        {"created": "yesterday"},
        {"tags": ["a"]},
        {"tags": {"a": 1}},
        {"params": "a"},
        {"metrics": {"auc": 0.5}},
        {"metrics": [["auc", 0.5]]},
        {"metrics": [["auc", "0.5", 1, 0, "", "", "r"]]},
        {"metrics": [["auc", 0.5, 10**40, 0, "", "", "r"]]},
        {"metrics": [["auc", 10**400, 1, 0, "", "", "r"]]},
        {"metrics": [["auc", 0.5, math.inf, 0, "", "", "r"]]},
        {"metrics": [[["auc"], 0.5, 1, 0, "", "", "r"]]},
    ],
)
def test_a_document_of_another_form_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as error:
        check_document({**DOCUMENT, **wrong})

    assert next(iter(wrong)) in str(error.value)
    assert "other-run" not in str(error.value)


@pytest.mark.parametrize("document", [[], "m", None, {}, {"name": "m"}])
def test_anything_but_a_whole_document_is_refused(document: Any) -> None:
    with pytest.raises(ValueError):
        check_document(document)
