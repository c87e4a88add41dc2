"""Every error class of the package.

    DbxAmlError
    ├── ArgumentError         also ValueError
    ├── ExperimentPathError   also ValueError
    ├── ModelUriError         also ValueError
    ├── WorkspaceError        also ValueError
    ├── AuthError             also RuntimeError
    ├── ClusterError          also RuntimeError
    ├── LinkError             also RuntimeError
    ├── LocalSparkError       also RuntimeError
    ├── MirrorError           also RuntimeError
    ├── NotebookError         also RuntimeError
    ├── RegistryError         also RuntimeError
    ├── RunError              also RuntimeError
    └── ScoringError          also RuntimeError
        ├── ModelNotFoundError           no such model, version or alias in the registry
        ├── NoScorableRowError           the model fails on every row
        ├── SchemaMismatchError          columns, types or signature do not fit together
        ├── TableNotFoundError           no such input table, or no right to read it
        └── TooManyQuarantinedRowsError  more than `max_quarantined_rows`

A message says: thing must rule: got value; next step. Those that are a ValueError too are about
what was typed, before anything was looked up: the command then exits with 2, else with 1.
"""


class DbxAmlError(Exception):
    """Root of the tree: the command shows its message as one line."""


class ArgumentError(DbxAmlError, ValueError):
    """An argument breaks a rule of its own, or does not go with another one."""


class ExperimentPathError(DbxAmlError, ValueError):
    """A Databricks experiment path cannot exist, or cannot be named in Azure ML."""


class ModelUriError(DbxAmlError, ValueError):
    """A model URI does not say which model, or not which version of it."""


class WorkspaceError(DbxAmlError, ValueError):
    """An Azure ML workspace cannot have such a name, tracking URI or ARM id."""


class AuthError(DbxAmlError, RuntimeError):
    """No token: says which sources were tried and what each answered, never a secret."""


class ClusterError(DbxAmlError, RuntimeError):
    """A cluster cannot be looked at or changed, or did not come up as it should."""


class LinkError(DbxAmlError, RuntimeError):
    """A link's settings do not fit together, or one of its services does not take them."""


class LocalSparkError(DbxAmlError, RuntimeError):
    """Spark cannot start on this machine."""


class MirrorError(DbxAmlError, RuntimeError):
    """Runs cannot be mirrored: one of the two services is not as it has to be."""


class NotebookError(DbxAmlError, RuntimeError):
    """A notebook cannot be read, or one of its cells failed."""


class RegistryError(DbxAmlError, RuntimeError):
    """A model cannot be registered, or its registry does not answer."""


class RunError(DbxAmlError, RuntimeError):
    """A run or an experiment cannot be looked at."""


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


def first_line(err: Exception) -> str:
    """Return what another library's error says, without its later lines."""
    return (str(err).strip() or type(err).__name__).splitlines()[0]
