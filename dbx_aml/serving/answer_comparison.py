"""Compare the answers of a scoring server with what `pyfunc.predict` returns."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dbx_aml._common.text import one_line
from dbx_aml.serving.scoring_request import request_body

if TYPE_CHECKING:
    from dbx_aml.serving.local_server import LocalEndpoint
    from dbx_aml.serving.scoring_request import Rows

# Requests that are timed for each input, unless they take longer than the seconds.
_TIMED_REQUESTS = 10
_TIMED_SECONDS = 2.0
_MAX_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class AnswerComparison:
    """The answer of the endpoint to one input.

    Args:
        input: Name of the input, for example "input example".
        rows: Number of predictions.
        milliseconds: Median time of a request.
        difference: First difference from `pyfunc.predict`; "" if the answers are equal.
    """

    input: str
    rows: int
    milliseconds: float
    difference: str


def compare_answers(
    endpoint: LocalEndpoint, inputs: Mapping[str, Rows] = MappingProxyType({})
) -> list[AnswerComparison]:
    """Send inputs to an endpoint, and compare its answers with `pyfunc.predict`.

    The input example of the model comes first, if it has one.

    Args:
        endpoint: Running endpoint.
        inputs: Further inputs by their names.

    Raises:
        ServingError: The server or the model refuses an input.
    """
    example = endpoint.input_example
    named_inputs = {**({} if example is None else {"input example": example}), **inputs}
    answers = {}
    times = {}
    for name, rows in named_inputs.items():
        answers[name] = endpoint.score(rows)
        times[name] = _measure_milliseconds(endpoint, rows)
    # The example is read by MLflow itself, so a fault of the request is a difference.
    bodies = [None] * (example is not None) + [
        json.loads(request_body(rows)) for rows in inputs.values()
    ]
    predictions = endpoint.predict(bodies) if bodies else []
    return [
        AnswerComparison(
            input=name,
            rows=len(answers[name]) if isinstance(answers[name], list) else 1,
            milliseconds=times[name],
            difference=find_difference(answers[name], prediction),
        )
        for name, prediction in zip(named_inputs, predictions, strict=True)
    ]


def find_difference(answer: Any, prediction: Any) -> str:
    """Return a sentence about the first difference of two JSON values, "" for equal ones."""
    if not isinstance(answer, list) or not isinstance(prediction, list):
        answer, prediction = [answer], [prediction]
    for number, (answer_row, prediction_row) in enumerate(
        zip(answer, prediction, strict=False), start=1
    ):
        texts = [json.dumps(row, sort_keys=True) for row in (answer_row, prediction_row)]
        if texts[0] != texts[1]:
            return (
                f"row {number:,}: the endpoint answers {one_line(texts[0], _MAX_SHOWN)}, "
                f"pyfunc.predict returns {one_line(texts[1], _MAX_SHOWN)}"
            )
    if len(answer) != len(prediction):
        return (
            f"the endpoint answers {len(answer):,} rows, pyfunc.predict returns {len(prediction):,}"
        )
    return ""


def _measure_milliseconds(endpoint: LocalEndpoint, rows: Rows) -> float:
    times: list[float] = []
    while len(times) < _TIMED_REQUESTS and sum(times) < _TIMED_SECONDS:
        start = time.perf_counter()
        endpoint.score(rows)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000
