"""Values of metrics that writers keep of logged models."""

import math
from typing import Any

import pytest
from mlflow.entities import Metric

from dbx_aml.tracking.azureml.logged_model_values import (
    ValueWriters,
    check_values,
    newest_metrics,
    newest_values,
)


def test_the_newest_values_and_the_latest_of_each_series_are_kept() -> None:
    loss = [["loss", 1 / step, step, step, "", "", "r"] for step in range(1, 101)]
    train = [["auc", value, time, 0, "train", "d1", "r"] for value, time in ((0.5, 1), (0.6, 2))]
    test = [["auc", 0.4, 3, 0, "test", "d2", "r"]]

    assert newest_values([*loss, *test, *train]) == [train[1], test[0], *loss[50:]]


def test_metrics_are_kept_by_the_same_rule_as_their_values() -> None:
    metrics = [Metric("loss", 0.5, 7, step, run_id="r") for step in range(60)]

    kept = newest_metrics([*metrics[30:], *metrics[:30]])

    assert [metric.step for metric in kept] == list(range(10, 60))


def test_values_as_this_package_writes_them_are_accepted() -> None:
    check_values({"values": [["auc", math.nan, 1, -1, "", "", "r"]], "key of a later release": 1})


@pytest.mark.parametrize(
    "wrong", [[], None, {"values": {}}, {"values": [["auc", 0.5]]}, {"values": "secret"}]
)
def test_values_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError) as error:
        check_values(wrong)

    assert "secret" not in str(error.value)


def test_two_threads_never_have_one_writer_and_a_later_call_has_the_same_again() -> None:
    writers = ValueWriters()
    with writers.borrow() as first, writers.borrow() as second:
        assert first is not second
    with writers.borrow() as third:
        assert third is first


def test_a_forked_process_has_writers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    writers = ValueWriters()
    with writers.borrow() as of_parent:
        pass
    monkeypatch.setattr("os.getpid", lambda: -1)

    with writers.borrow() as of_child:
        assert of_child is not of_parent
