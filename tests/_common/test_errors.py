"""The meaning of error codes of MLflow and Databricks."""

import re

import pytest
from mlflow.exceptions import MlflowException

from dbx_aml._common import errors
from dbx_aml._common.errors import (
    CredentialError,
    DbxAmlError,
    LinkError,
    RunMirrorError,
    is_not_found,
    is_permission_denied,
    is_retryable,
)


def mlflow_error(code: str) -> MlflowException:
    error = MlflowException("refused")
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("code", "is_missing_resource", "is_denied", "can_succeed_later"),
    [
        ("RESOURCE_DOES_NOT_EXIST", True, False, False),
        ("NOT_FOUND", True, False, False),
        ("PERMISSION_DENIED", False, True, True),
        ("UNAUTHENTICATED", False, True, True),
        ("INVALID_PARAMETER_VALUE", False, False, False),
        ("RESOURCE_ALREADY_EXISTS", False, False, False),
        ("REQUEST_LIMIT_EXCEEDED", False, False, True),
        ("INTERNAL_ERROR", False, False, True),
    ],
)
def test_a_code_of_mlflow_tells_what_to_do(
    code: str, is_missing_resource: bool, is_denied: bool, can_succeed_later: bool
) -> None:
    error = mlflow_error(code)
    assert is_not_found(error) is is_missing_resource
    assert is_permission_denied(error) is is_denied
    assert is_retryable(error) is can_succeed_later


def test_an_error_of_the_network_is_retryable_and_one_of_ours_only_if_it_can_pass() -> None:
    assert is_retryable(ConnectionError("reset"))
    assert is_retryable(CredentialError("no token"))
    assert is_permission_denied(CredentialError("no token"))
    assert not is_retryable(LinkError("wrong mode"))
    assert not is_retryable(RunMirrorError("another value"))


def test_the_tree_in_the_docstring_has_every_class_below_its_base() -> None:
    drawn = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, DbxAmlError)
    }
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in classes.items()}
