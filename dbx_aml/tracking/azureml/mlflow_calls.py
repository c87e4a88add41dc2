"""Requests to Azure ML, tried again within one bound on tries and waits together.

MLflow's own retries wait up to four minutes, whatever the server asks for, and cannot be told a
time. Here the server's Retry-After counts, `DBX_AML_RETRY_TIMEOUT_S` is the bound (120 seconds
unless set), and the last error says what was answered.
"""

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import requests
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, TEMPORARILY_UNAVAILABLE
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds, http_request, verify_rest_response

RETRY_VARIABLE = "DBX_AML_RETRY_TIMEOUT_S"
_DEFAULT_RETRY_S = 120.0
_LONGEST_WAIT_S = 20.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# Answered before anything was done.
_REFUSED = frozenset({425, 429, 503})
HostCreds = Callable[[], MlflowHostCreds]


class CallNotSupportedError(MlflowException):
    """Azure ML does not have this call of MLflow: 404 without a word."""


class AnswerLostError(MlflowException):
    """A request that may not be sent twice may or may not have been done."""


def retry_timeout_s() -> float:
    """Return for how many seconds one call is tried."""
    text = os.environ.get(RETRY_VARIABLE, "")
    try:
        return max(0.0, float(text)) if text else _DEFAULT_RETRY_S
    except ValueError as error:
        raise MlflowException(
            f"{RETRY_VARIABLE} must be a number of seconds: got {text!r}; use for example 120"
        ) from error


class Attempts:
    """The tries of one call, counted and bounded.

    Args:
        what: The call, for its last error, for example "POST runs/log-batch".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bound = retry_timeout_s()
        self._end = time.monotonic() + self._bound
        self._count = 0
        # Whoever limits MLflow's retries by number means these too.
        limited = MLFLOW_HTTP_REQUEST_MAX_RETRIES
        self._most = limited.get() if os.environ.get(limited.name) else None

    @property
    def left_s(self) -> float:
        """Seconds until the bound, at least one so that a last try can be answered."""
        return max(1.0, self._end - time.monotonic())

    def wait(self, problem: str, after_s: float | None = None) -> None:
        """Wait for the next try.

        Raises:
            MlflowException: There is none within the bound.
        """
        self._count += 1
        if after_s is None:
            # The first one at once: an idle connection that was closed is the usual reason.
            after_s = 0.0 if self._count == 1 else min(_LONGEST_WAIT_S, 2.0 ** (self._count - 2))
            after_s += random.random() * 0.1 * (self._count > 1)
        over = time.monotonic() + after_s > self._end
        if over or (self._most is not None and self._count > self._most):
            raise MlflowException(
                f"Azure ML failed {self._count} times within {self._bound:g} s at {self._what}: "
                f"{problem}; try later, or wait longer with {RETRY_VARIABLE}",
                TEMPORARILY_UNAVAILABLE,
            )
        time.sleep(after_s)


def send(
    creds: HostCreds, method: str, endpoint: str, *, once: bool = False, **content: Any
) -> requests.Response:
    """Return the answer to a request, whatever its status; transient ones are tried again.

    Args:
        creds: Gives host and token, asked anew for each try.
        method: For example "GET".
        endpoint: Path after the host.
        once: The request makes something new each time it is done.
        content: `params` or `json`.

    Raises:
        AnswerLostError: With `once`: it may have been done.
        MlflowException: No answer, or only transient failures, within the bound.
    """
    attempts = Attempts(f"{method} {endpoint.rpartition('/mlflow/')[2]}")
    while True:
        timeout = min(float(MLFLOW_HTTP_REQUEST_TIMEOUT.get()), attempts.left_s)
        try:
            answer: requests.Response = http_request(
                creds(),
                endpoint,
                method,
                max_retries=0,
                raise_on_status=False,
                timeout=timeout,
                **content,
            )
        except MlflowException as error:
            problem, after = str(error), None
            if once:
                raise AnswerLostError(problem) from error
        else:
            if answer.status_code not in _TRANSIENT:
                return answer
            problem = f"answered {answer.status_code} {answer.text[:300]}".strip()
            after = _retry_after(answer)
            if once and answer.status_code not in _REFUSED:
                raise AnswerLostError(problem)
        attempts.wait(problem, after)


def call(
    creds: HostCreds,
    endpoint: str,
    method: str,
    json_body: str | None,
    response: Any,
    *,
    once: bool = False,
) -> Any:
    """Make one call of MLflow's REST API and return its parsed answer.

    Raises:
        CallNotSupportedError: Azure ML does not have it.
        MlflowException: It was refused, or there was no answer within the bound.
    """
    body = json.loads(json_body) if json_body is not None else None
    content = {"params": body} if method == "GET" else {"json": body}
    answer = send(creds, method, endpoint, once=once, **content)
    if answer.status_code == 404 and not answer.text.strip():
        raise CallNotSupportedError(
            f"Azure ML has no {method} {endpoint.rpartition('/mlflow/')[2]}", ENDPOINT_NOT_FOUND
        )
    answer = verify_rest_response(answer, endpoint)
    if answer.status_code != 204:
        parse_dict(js_dict=json.loads(answer.text), message=response)
    return response


def _retry_after(answer: requests.Response) -> float | None:
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
