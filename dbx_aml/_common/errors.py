"""Every error class of the package, and the meaning of other libraries' error codes.

    DbxAmlError
    ├── ArgumentError             also ValueError
    ├── ExperimentPathError       also ValueError
    ├── ModelUriError             also ValueError
    ├── WorkspaceError            also ValueError
    │   └── UntrustedHostError           a token or bytes would go to a host that is not Azure's
    ├── ClusterError              also RuntimeError
    ├── CredentialError           also RuntimeError
    ├── EndpointError             also RuntimeError
    ├── LinkError                 also RuntimeError
    ├── LocalSparkError           also RuntimeError
    ├── MirrorError               also RuntimeError
    │   └── RunMirrorError               the destination cannot hold this run
    ├── MonitoringError           also RuntimeError
    ├── NotebookError             also RuntimeError
    ├── PackagesError             also RuntimeError
    │   └── UnsolvableRequirementsError  no set of packages meets all requirements
    ├── ProgramError              also RuntimeError
    ├── RegistryError             also RuntimeError
    ├── RunError                  also RuntimeError
    ├── ScoringError              also RuntimeError
    │   ├── ModelNotFoundError           no such model, version or alias in the registry
    │   ├── NoScorableRowError           the model fails on every row
    │   ├── SchemaMismatchError          columns, types or signature do not fit together
    │   ├── TableNotFoundError           no such input table, or no right to read it
    │   └── TooManyQuarantinedRowsError  more than `max_quarantined_rows`
    ├── ServingError              also RuntimeError
    ├── ServiceError              also RuntimeError
    │   ├── NotFoundError                no such resource
    │   ├── OperationError               an operation that was accepted has failed
    │   ├── OperationTimeoutError        an operation did not end in time; it goes on
    │   ├── PermissionDeniedError        the caller is known and not allowed
    │   ├── ServiceUnavailableError      no answer until the end of the retries
    │   ├── TemporaryError               one attempt failed, a retry may succeed
    │   └── WrongStateError              the resource takes no change now
    └── UnsafePathError           also RuntimeError

A message says: thing must rule: got value; next step. A class that is also a ValueError is about an
argument, before any service was called: the command `dbx-aml` then exits with 2, else with 1.
"""

from dbx_aml._common.text import printable


class DbxAmlError(Exception):
    """Root of the tree: the command shows its message as one line.

    Args:
        message: Text for people. Secrets and control codes in it are replaced, also those in the
            text of another library's error.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class ArgumentError(DbxAmlError, ValueError):
    """An argument is not valid, or contradicts another argument."""


class ExperimentPathError(DbxAmlError, ValueError):
    """A Databricks experiment path cannot exist, or cannot be named in Azure ML."""


class ModelUriError(DbxAmlError, ValueError):
    """A model URI names no model, or no version of it."""


class WorkspaceError(DbxAmlError, ValueError):
    """An Azure ML workspace cannot have such a name, tracking URI or ARM id."""


class UntrustedHostError(WorkspaceError):
    """A URI has a host that is not Azure's, so no token and no bytes go there."""


class ClusterError(DbxAmlError, RuntimeError):
    """A cluster cannot be read or changed, or did not start as it should."""


class CredentialError(DbxAmlError, RuntimeError):
    """No source gave a token. The message lists each source tried and its error, never a secret."""


class EndpointError(DbxAmlError, RuntimeError):
    """A model cannot be deployed to an endpoint, or the endpoint does not answer as it should."""


class LinkError(DbxAmlError, RuntimeError):
    """The link's settings contradict each other, or one of its services refuses them."""


class LocalSparkError(DbxAmlError, RuntimeError):
    """Spark cannot start on this machine."""


class MirrorError(DbxAmlError, RuntimeError):
    """Runs cannot be mirrored: the source or the destination server is not as required."""


class RunMirrorError(MirrorError):
    """The destination cannot hold this run: mirroring it again would fail in the same way."""


class MonitoringError(DbxAmlError, RuntimeError):
    """A table cannot be compared with its baseline."""


class NotebookError(DbxAmlError, RuntimeError):
    """A notebook cannot be read, or one of its cells failed."""


class PackagesError(DbxAmlError, RuntimeError):
    """The packages of a model or a job cannot be resolved or installed."""


class UnsolvableRequirementsError(PackagesError):
    """No set of packages meets all requirements."""


class ProgramError(DbxAmlError, RuntimeError):
    """A program failed or did not end in time.

    Args:
        message: Text that the command shows.
        exit_code: Status that the program ended with; None if it was stopped or never started.
        stderr: All that the program wrote to its standard error.
    """

    def __init__(self, message: str, *, exit_code: int | None = None, stderr: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stderr = stderr


class RegistryError(DbxAmlError, RuntimeError):
    """A model cannot be registered, or its registry does not answer."""


class RunError(DbxAmlError, RuntimeError):
    """A run or an experiment cannot be read."""


class ScoringError(DbxAmlError, RuntimeError):
    """A table cannot be scored."""


class ModelNotFoundError(ScoringError):
    """The registry or the tracking server has no such model, version or alias."""


class NoScorableRowError(ScoringError):
    """The model fails on every row of the input, so nothing was written."""


class SchemaMismatchError(ScoringError):
    """The columns of a table, the model's signature and the arguments do not fit together."""


class TableNotFoundError(ScoringError):
    """The input table does not exist, or the user may not read it."""


class TooManyQuarantinedRowsError(ScoringError):
    """More rows than `max_quarantined_rows` could not be scored; both tables are written."""


class ServingError(DbxAmlError, RuntimeError):
    """A model cannot be served, or its scoring server does not answer as it should.

    Args:
        message: Text that the command shows.
        log: Last lines of the scoring server's log; "" if no server ran.
    """

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class ServiceError(DbxAmlError, RuntimeError):
    """A service refused a request, or its answer breaks the protocol."""


class NotFoundError(ServiceError):
    """The service has no such resource.

    Args:
        message: Answer of the service.
        code: Azure's code of the error, for example "ResourceGroupNotFound".
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OperationError(ServiceError):
    """An operation that the service accepted has failed, or was canceled."""


class OperationTimeoutError(ServiceError):
    """An operation did not end in time; the service goes on with it."""


class PermissionDeniedError(ServiceError):
    """The service knows the caller and does not allow the request."""


class ServiceUnavailableError(ServiceError):
    """The service gave no answer, or only temporary errors, until the end of the retries."""


class TemporaryError(ServiceError):
    """An attempt failed in a way that a retry may mend.

    Args:
        message: Answer of the service, in a few words.
        retry_after_s: Seconds that the service asks the caller to wait; None for no wish.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WrongStateError(ServiceError):
    """The resource is in a state in which the service refuses the change."""


class UnsafePathError(DbxAmlError, RuntimeError):
    """A path from another service, a file or a wheel leads out of the folder that it belongs in."""


# Error codes of MLflow and Databricks by their meaning for the caller.
_MISSING_RESOURCE_CODES = frozenset({"NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"})
_DENIED_CODES = frozenset({"CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED", "UNAUTHENTICATED"})
_PERMANENT_CODES = _MISSING_RESOURCE_CODES | {
    "ALREADY_EXISTS",
    "ENDPOINT_MISSING_RESOURCE_CODES",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_CONFLICT",
    "RESOURCE_LIMIT_EXCEEDED",
}
_OUTAGE_CODES = frozenset({"REQUEST_LIMIT_EXCEEDED", "TEMPORARILY_UNAVAILABLE"})
# Errors of this package after which a later call may succeed.
_RETRYABLE_ERRORS = (
    CredentialError,
    PermissionDeniedError,
    ServiceUnavailableError,
    TemporaryError,
)


def is_not_found(error: BaseException) -> bool:
    """Tell whether a service answered that the resource does not exist."""
    return isinstance(error, NotFoundError) or _error_code(error) in _MISSING_RESOURCE_CODES


def is_permission_denied(error: BaseException) -> bool:
    """Tell whether the caller has no token or no permission: every call will then fail."""
    if isinstance(error, PermissionDeniedError | CredentialError):
        return True
    return _error_code(error) in _DENIED_CODES


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same call may succeed later: after an outage, a limit or a new permission.

    An error of an unknown kind counts as retryable: it may be the network's.
    """
    code = _error_code(error)
    if code:
        return code not in _PERMANENT_CODES
    return not isinstance(error, DbxAmlError) or isinstance(error, _RETRYABLE_ERRORS)


def is_outage(error: BaseException) -> bool:
    """Tell whether a server gave no answer, or only temporary errors: another call may fail too."""
    if isinstance(error, PermissionDeniedError | CredentialError) or _error_code(error):
        return _error_code(error) in _OUTAGE_CODES
    outages = ConnectionError | TimeoutError | ServiceUnavailableError | TemporaryError
    return isinstance(error, outages)


def _error_code(error: BaseException) -> str:
    """Return the code that MLflow's and Databricks' exceptions carry, "" for any other error."""
    return str(getattr(error, "error_code", None) or "")
