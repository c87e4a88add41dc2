"""The path of an experiment in Databricks and its name in Azure ML, as MLflow knows both."""

import hashlib
import re
import unicodedata

from dbx_aml._common.errors import ExperimentPathError

_LONGEST_NAME = 256
_HASH_LENGTH = 8
_ACCEPTED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")


def user_experiment_path(user: str, name: str, folder: str = "") -> str:
    """Return the absolute Databricks path of a user's experiment.

    Args:
        user: Databricks user name, for example "ana@contoso.com".
        name: Last segment of the path, for example "iris".
        folder: Folders below the user's, for example "trials/2013"; none by default.

    Returns:
        For example "/Users/ana@contoso.com/trials/2013/iris".

    Raises:
        ExperimentPathError: A segment is empty, or user or name contains a slash.
    """
    for argument, value in (("user", user), ("name", name)):
        if not value.strip() or "/" in value:
            raise ExperimentPathError(
                f"experiment {argument} must be one segment of a path: got {value!r}; "
                "pass folders as the argument 'folder'"
            )
    folders = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return normalize_experiment_path(f"/Users/{user}/{folders}{name}")


def normalize_experiment_path(path: str) -> str:
    """Return the path as MLflow knows it: without the `/Workspace` that the file browser shows.

    Args:
        path: Path in Databricks, for example "/Workspace/Users/ana@contoso.com/iris".

    Returns:
        For example "/Users/ana@contoso.com/iris".

    Raises:
        ExperimentPathError: The path is relative, or has an empty segment.
    """
    if not path.startswith("/"):
        raise ExperimentPathError(
            f"experiment path must be absolute: got {path!r}; use for example '/Users/<user>/iris'"
        )
    segments = path[1:].split("/")
    if segments[0] == "Workspace":
        del segments[0]
    if not segments or not all(segment.strip() for segment in segments):
        raise ExperimentPathError(
            f"experiment path must have no empty segment: got {path!r}; "
            "use for example '/Users/<user>/iris'"
        )
    return "/" + "/".join(segments)


def experiment_name(path: str) -> str:
    """Return the Azure ML experiment name for a Databricks experiment path.

    Databricks names an experiment by where it is saved, Azure ML by a bare name. Two
    different paths never share a name: a short hash of the whole path ends it.

    Args:
        path: Absolute path in Databricks, for example "/Users/ana@contoso.com/iris".

    Returns:
        A name of 1 to 256 characters, for example "iris-145f1174": ASCII letters, digits, `_`
        and `-`; it begins with a letter or digit.

    Raises:
        ExperimentPathError: The path is relative, or has an empty segment.

    Source:
        Microsoft Learn, "Track Azure Databricks ML experiments with MLflow and Azure
        Machine Learning"; name rule of the Azure ML run history service, seen 2026-11.
    """
    path = normalize_experiment_path(path)
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    # "é" becomes "e" and an accent, which is dropped; a letter without a Latin base becomes "-".
    letters = unicodedata.normalize("NFKD", path.rpartition("/")[2])
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", letters).strip("-_") or "experiment"
    return f"{stem[: _LONGEST_NAME - _HASH_LENGTH - 1]}-{digest}"


def accepted_experiment_name(name: str) -> str:
    """Return the name under which Azure ML keeps an experiment.

    Args:
        name: Name or Databricks path, for example "iris", which Azure ML accepts, or
            "/Users/ana@contoso.com/iris", which is mapped.
    """
    if _ACCEPTED_NAME.fullmatch(name):
        return name
    return experiment_name(name if name.startswith("/") else f"/{name}")
