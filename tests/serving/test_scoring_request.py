"""The body of a request to the scoring server."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.serving.scoring_request import first_row, parse_rows, request_body


def test_a_frame_keeps_every_digit_and_its_times_texts_lists_and_missing_values() -> None:
    frame = pd.DataFrame(
        {
            "x": [0.1 + 0.2, np.nan],
            "at": pd.to_datetime(["2024-01-01 10:00:00.123456789", None]),
            "text": ["ä", None],
            "tags": [["a", "b"], []],
            "bytes": [b"hello", b""],
            "n": np.array([1, 2], dtype="int8"),
        },
        index=[7, 3],
    )
    assert json.loads(request_body(frame)) == {
        "input_data": {
            "columns": ["x", "at", "text", "tags", "bytes", "n"],
            "index": [0, 1],
            "data": [
                [0.1 + 0.2, "2024-01-01T10:00:00.123456789", "ä", ["a", "b"], "aGVsbG8=\n", 1],
                [None, None, None, [], "", 2],
            ],
        }
    }


@pytest.mark.parametrize(
    ("rows", "input_data"),
    [
        (
            {"columns": ["x"], "data": [[1], [2]]},
            {"columns": ["x"], "data": [[1], [2]], "index": [0, 1]},
        ),
        (
            {"columns": ["x"], "data": [[1]], "index": [5]},
            {"columns": ["x"], "data": [[1]], "index": [5]},
        ),
        ([[1.5, 2.5]], [[1.5, 2.5]]),
        (np.array([[1.5], [2.5]]), [[1.5], [2.5]]),
        ({"text": "hello"}, {"text": "hello"}),
    ],
)
def test_the_content_of_input_data_is_passed_on_and_a_missing_index_is_added(
    rows, input_data
) -> None:
    assert json.loads(request_body(rows)) == {"input_data": input_data}


def test_a_whole_request_is_passed_on() -> None:
    request = {"input_data": [[1]], "params": {"top": 3}}
    assert json.loads(request_body(request)) == request


def test_the_first_row_of_a_whole_request_keeps_its_parameters() -> None:
    request = {"input_data": {"columns": ["x"], "data": [[1], [2]]}, "params": {"top": 3}}
    assert first_row(request) == {
        "input_data": {"columns": ["x"], "index": [0], "data": [[1]]},
        "params": {"top": 3},
    }
    assert first_row({"input_data": [[1], [2]]}) == {"input_data": [[1]]}


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ArgumentError, match="must hold values that JSON can hold"):
        request_body(pd.DataFrame({"x": [pd.Timedelta(days=1)]}))


@pytest.mark.parametrize("text", ["{oops", "", "3", '"text"'])
def test_a_file_without_rows_is_refused_with_an_example(text) -> None:
    with pytest.raises(ArgumentError, match=r'\{"columns": \["x"\], "data": \[\[1.5\]\]\}'):
        parse_rows(text)


def test_rows_of_a_file_are_its_json() -> None:
    assert parse_rows('{"columns": ["x"], "data": [[1.5]]}') == {"columns": ["x"], "data": [[1.5]]}
