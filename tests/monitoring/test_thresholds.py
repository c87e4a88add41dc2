"""Thresholds that no run can check are refused."""

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.monitoring.thresholds import THRESHOLDS, check_problem_type, check_thresholds


@pytest.mark.parametrize("limit", ["0.2", None, float("nan"), float("inf"), -1])
def test_a_threshold_is_a_number_that_is_not_negative(limit):
    with pytest.raises(ArgumentError, match="threshold psi must be 0 or more"):
        check_thresholds({"psi": limit}, has_labels=False)


def test_a_threshold_of_the_other_kind_of_labels_is_refused():
    of_classes = {"accuracy", "precision", "recall", "f1"}
    of_numbers = {"mae", "rmse", "mse", "mape", "r2"}
    for kind, other, names in (
        ("regression", "classification", of_classes),
        ("classification", "regression", of_numbers),
    ):
        for name in names:
            with pytest.raises(ArgumentError, match=f"threshold {name} .* problem_type '{other}'"):
                check_problem_type({name: 0.8}, kind)
        check_problem_type(dict.fromkeys(set(THRESHOLDS) - names, 0.8), kind)
