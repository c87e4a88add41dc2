"""The two forms in which Azure ML writes an error."""

from datetime import UTC, datetime
from uuid import uuid4

from tests.support.http.messages import Response, json_response

# Error code of MLflow for a status, in errors that the service makes itself.
_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_ALREADY_EXISTS",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def tracking_error(
    status: int,
    message: str,
    *,
    code: str = "UserError",
    error_code: str | None = None,
    region: str = "westeurope",
) -> Response:
    """Return an error as the MLflow part of the service writes it: capitals, no `message` on top.

    MLflow therefore shows the whole object after "Response:".
    """
    return json_response(
        {
            "Error": {
                "Code": code,
                "Severity": None,
                "Message": message,
                "MessageFormat": None,
                "MessageParameters": None,
                "ReferenceCode": None,
                "DetailsUri": None,
                "Target": None,
                "Details": [],
                "InnerError": None,
                "DebugInfo": None,
                "AdditionalInfo": None,
            },
            "Correlation": {"operation": uuid4().hex, "request": uuid4().hex[:16]},
            "Environment": region,
            "Location": region,
            "Time": datetime.now(UTC).isoformat(),
            "ComponentName": "mlflow",
            "statusCode": status,
            "error_code": error_code or _MLFLOW_CODES.get(status, "INTERNAL_ERROR"),
        },
        status,
    )


def service_error(status: int, message: str, *, code: str = "UserError") -> Response:
    """Return an error as run history, artifacts and the management endpoint write it."""
    return json_response({"error": {"code": code, "message": message, "details": []}}, status)
