"""Which errors pass by themselves, which stay with a run, and which stop everything."""

from mlflow.exceptions import MlflowException

from dbx_aml._common.errors import CredentialError, DbxAmlError

_DENIED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_LASTING = frozenset(
    {
        "ALREADY_EXISTS",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_FOUND",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_CONFLICT",
        "RESOURCE_DOES_NOT_EXIST",
        "RESOURCE_LIMIT_EXCEEDED",
    }
)


class RunMirrorError(Exception):
    """A run that the destination cannot hold: the same will happen again."""


def is_missing(error: BaseException) -> bool:
    """Tell whether a server said that there is no such thing."""
    codes = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
    return isinstance(error, MlflowException) and str(error.error_code) in codes


def is_denied(error: BaseException) -> bool:
    """Tell whether the caller may not: then it is the same for every run."""
    if isinstance(error, MlflowException):
        return str(error.error_code) in _DENIED
    return isinstance(error, CredentialError)


def is_lasting(error: BaseException) -> bool:
    """Tell whether trying again later is no use: not an outage, not a limit on requests."""
    if isinstance(error, MlflowException):
        return str(error.error_code) in _LASTING
    return isinstance(error, RunMirrorError | DbxAmlError) and not isinstance(
        error, CredentialError
    )
