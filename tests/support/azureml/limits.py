"""The service's limits on what a run takes, refused with its own words.

Source:
    Microsoft Learn, "Manage and increase quotas and limits", and error texts that users report.
"""

import re
from typing import Any
from urllib.parse import parse_qsl

from tests.support.azureml.errors import tracking_error
from tests.support.http.messages import Response

_PARAMS_A_RUN = 200
_PARAM_VALUE = 500
_METRIC_VALUES = 250
_TAGS_A_CALL = 50
_TAG_VALUE = 1000
_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_LIMITS_PAGE = "See https://aka.ms/azure-machine-learning-limits for service limits documentation."


def broken_limit(call: str, body: dict[str, Any], params_before: frozenset[str]) -> Response | None:
    """Return the refusal of a call beyond the limits; None for a call within the limits.

    Args:
        call: For example "runs/log-batch".
        body: Body of the request.
        params_before: Names of the parameters that the run has.
    """
    if call in ("experiments/create", "experiments/update"):
        return _experiment_name(str(body.get("name") or body.get("new_name") or ""))
    if call == "runs/search":
        return _run_search(str(body.get("filter") or ""), body.get("order_by") or [])
    if call == "runs/log-parameter":
        return _params([body], params_before)
    if call == "runs/set-tag":
        return _tags([body])
    if call == "runs/create":
        return _tags(body.get("tags", []))
    if call == "runs/log-batch":
        return (
            _size("MetricV2Dto.Value/Count", _METRIC_VALUES, len(body.get("metrics", [])))
            or _params(body.get("params", []), params_before)
            or _tags(body.get("tags", []))
        )
    return None


def unsupported_filter(query: str) -> Response | None:
    """Return the refusal of a filter about prompts, which MLflow adds to a search for models.

    Source:
        github.com/Azure/azure-sdk-for-python, issue 42155.
    """
    filter_string = dict(parse_qsl(query)).get("filter", "")
    if "mlflow.prompt.is_prompt" not in filter_string:
        return None
    return _refusal(
        "Currently unsupported filter string format (we currently do not support OR). "
        f"Provided filter string: {filter_string}"
    )


def _experiment_name(name: str) -> Response | None:
    if _EXPERIMENT_NAME.fullmatch(name):
        return None
    return _refusal(
        f"Experiment name '{name}' is invalid. It must be between 1 and 256 characters, start "
        "with a letter or a number, and have only letters, numbers, underscores and dashes."
    )


def _run_search(filter_string: str, order_by: list[str]) -> Response | None:
    """Refuse what the support matrix of the service leaves out.

    Source:
        Microsoft Learn, "Query and compare experiments and runs with MLflow"; seen 2026-11.
    """
    if re.search(r"\btags?\.(`[^`]*`|\"[^\"]*\"|[\w.]+)\s*!=", filter_string, re.IGNORECASE):
        return _refusal(f"The operator '!=' is not supported for tags: {filter_string}")
    if re.search(r"\bmetrics?\.[`\"]", filter_string, re.IGNORECASE):
        return _refusal(f"Escaped names of metrics are not supported: {filter_string}")
    if any(re.match(r"\s*(metric|param|parameter|tag)s?\.", clause) for clause in order_by):
        return _refusal(f"Order by metrics, params or tags is not supported: {order_by}")
    return None


def _params(params: list[dict[str, Any]], logged_params: frozenset[str]) -> Response | None:
    too_long = sum(len(str(param.get("value", ""))) > _PARAM_VALUE for param in params)
    if too_long:
        return _refusal(
            f"No more than {_PARAM_VALUE} characters per params Value. Request contains "
            f"{too_long} of greater length."
        )
    return _size(
        "Parameters", _PARAMS_A_RUN, len(logged_params | {str(p.get("key")) for p in params})
    )


def _tags(tags: list[dict[str, Any]]) -> Response | None:
    longest = max((len(str(tag.get("value", ""))) for tag in tags), default=0)
    return _size("Tags", _TAGS_A_CALL, len(tags)) or _size("Tags.Value", _TAG_VALUE, longest)


def _size(field: str, limit: int, size: int) -> Response | None:
    if size <= limit:
        return None
    return _refusal(
        f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, "
        f"Size={size}. {_LIMITS_PAGE}"
    )


def _refusal(message: str) -> Response:
    return tracking_error(
        400, message, code="ValidationError", error_code="INVALID_PARAMETER_VALUE"
    )
