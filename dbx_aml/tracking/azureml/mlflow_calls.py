"""Requests to Azure ML, retried within one bound on attempts and waits together.

MLflow's own retries wait up to four minutes, ignore the service's Retry-After, and have no bound in
seconds. These requests wait as Retry-After says and end after `DBX_AML_RETRY_TIMEOUT_S` seconds
(120 unless set). The error then holds the last answer.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    ENDPOINT_NOT_FOUND,
    INVALID_PARAMETER_VALUE,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.rest_utils import MlflowHostCreds, http_request, verify_rest_response

from dbx_aml._common.errors import (
    ArgumentError,
    ServiceUnavailableError,
    TemporaryError,
    UnsafePathError,
    UntrustedHostError,
)
from dbx_aml._common.http import (
    REFUSED_STATUSES,
    TEMPORARY_STATUSES,
    NoAnswerError,
    root_cause,
    send_within,
)
from dbx_aml._common.retry import (
    RetryPolicy,
    call_with_retries,
    parse_retry_after,
    service_policy,
)

HostCreds = Callable[[], MlflowHostCreds]
Result = TypeVar("Result")


class CallNotSupportedError(MlflowException):
    """Azure ML does not have this call of MLflow: it answers 404 with an empty body."""


class AnswerLostError(MlflowException):
    """Azure ML may or may not have done a request that must not be sent twice."""


@contextmanager
def mlflow_errors(prefix: str = "") -> Iterator[None]:
    """Raise MLflow's error, as its callers expect, for a host or a path that is refused.

    Args:
        prefix: Begin of the message.
    """
    try:
        yield
    except (UnsafePathError, UntrustedHostError) as error:
        raise MlflowException(f"{prefix}{error}", INVALID_PARAMETER_VALUE) from error


def with_retries(
    call: Callable[[float], Result],
    retried_errors: type[Exception] | tuple[type[Exception], ...],
    operation: str,
) -> Result:
    """Return the result of a call, which is retried after some errors within one time limit.

    Args:
        call: Function of one argument: the seconds left for this attempt.
        retried_errors: Classes of the errors after which the call is retried.
        operation: Name of the call in the error, for example "POST runs/log-batch".

    Raises:
        MlflowException: The last attempt within the limit failed too, or the variable that holds
            the limit is no number.
    """
    retries = MLFLOW_HTTP_REQUEST_MAX_RETRIES
    # A user who limits the number of MLflow's retries limits these retries too.
    max_attempts = retries.get() + 1 if os.environ.get(retries.name) else None
    try:
        policy = replace(service_policy(), max_attempts=max_attempts)
        return call_with_retries(
            call,
            policy,
            lambda error: isinstance(error, retried_errors),
            operation=f"Azure ML call {operation}",
        )
    except ArgumentError as error:
        raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error
    except ServiceUnavailableError as error:
        message = str(error)
    # Outside of the handler: the caught error may refer to a request with its token.
    raise MlflowException(message, TEMPORARILY_UNAVAILABLE)


def create_once(
    create: Callable[[], Result], find_created: Callable[[], Result | None], operation: str
) -> Result:
    """Create something; after a lost answer it is searched before the next attempt.

    Args:
        create: Function that sends the request.
        find_created: Function that returns what an earlier attempt created, or None.
        operation: Name of the call in the error, for example "POST runs/create".
    """
    is_sent = False

    def attempt(_seconds_left: float) -> Result:
        nonlocal is_sent
        created = find_created() if is_sent else None
        is_sent = True
        return created if created is not None else create()

    return with_retries(attempt, AnswerLostError, operation)


def send_request(
    creds: HostCreds, method: str, endpoint: str, *, is_idempotent: bool = True, **content: Any
) -> requests.Response:
    """Return the answer to a request, whatever its status; temporary failures are retried.

    Args:
        creds: Function that returns host and token; called for each attempt.
        method: HTTP method, for example "GET".
        endpoint: Path after the host.
        is_idempotent: Whether a second request changes nothing more; False for a request that
            creates a new run, experiment or version each time.
        content: `params` or `json`.

    Raises:
        AnswerLostError: The request is not idempotent, and Azure ML may have done it.
        MlflowException: Azure ML gave no answer, or only temporary failures, within the limit.
    """
    operation = f"{method} {endpoint.rpartition('/mlflow/')[2]}"

    def attempt(seconds_left: float) -> requests.Response:
        timeout = min(float(MLFLOW_HTTP_REQUEST_TIMEOUT.get()), seconds_left)
        try:
            with send_within(RetryPolicy(timeout_s=timeout, max_attempts=1)):
                response: requests.Response = http_request(
                    creds(),
                    endpoint,
                    method,
                    max_retries=0,
                    raise_on_status=False,
                    # Another host must see neither the token nor the run.
                    allow_redirects=False,
                    **content,
                )
        except NoAnswerError as error:
            problem = root_cause(error.cause or error)
            if not is_idempotent:
                raise AnswerLostError(problem) from error
            raise TemporaryError(problem) from error
        status = response.status_code
        if 300 <= status < 400:
            target = urlsplit(response.headers.get("Location", "")).hostname
            raise MlflowException(
                f"Azure ML must answer by itself: got a redirect to {target!r} for {operation}; "
                "set HTTPS_PROXY if a proxy asks for a login"
            )
        if status not in TEMPORARY_STATUSES:
            return response
        problem = f"status {status} {response.text[:300]}".strip()
        if not is_idempotent and status not in REFUSED_STATUSES:
            raise AnswerLostError(problem)
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
        raise TemporaryError(problem, retry_after_s=retry_after_s)

    return with_retries(attempt, TemporaryError, operation)


def call_mlflow_api(
    creds: HostCreds,
    endpoint: str,
    method: str,
    json_body: str | None,
    response_message: Any,
    *,
    is_idempotent: bool = True,
) -> Any:
    """Make one call of MLflow's REST API and return its parsed answer.

    Args:
        creds: Function that returns host and token.
        endpoint: Path after the host.
        method: HTTP method, for example "POST".
        json_body: Request message of the call as JSON.
        response_message: Empty message of the call's answer; it is filled and returned.
        is_idempotent: As in `send_request`.

    Raises:
        CallNotSupportedError: Azure ML does not have the call.
        MlflowException: Azure ML refused the call, or gave no answer within the limit.
    """
    body = json.loads(json_body) if json_body is not None else None
    content = {"params": body} if method == "GET" else {"json": body}
    response = send_request(creds, method, endpoint, is_idempotent=is_idempotent, **content)
    if response.status_code == 404 and not response.text.strip():
        raise CallNotSupportedError(
            f"Azure ML has no {method} {endpoint.rpartition('/mlflow/')[2]}", ENDPOINT_NOT_FOUND
        )
    response = verify_rest_response(response, endpoint)
    if response.status_code != 204:
        parse_dict(js_dict=json.loads(response.text), message=response_message)
    return response_message
