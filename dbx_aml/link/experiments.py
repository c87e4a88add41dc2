"""One experiment, two conventions: its path in Databricks and its name in Azure ML."""

import hashlib
import re
import unicodedata

from dbx_aml._common.errors import ExperimentPathError

_LONGEST_NAME = 256
_HASH_LENGTH = 8


def experiment_path(user: str, name: str, folder: str = "") -> str:
    """Return the absolute Databricks path of a user's experiment.

    Args:
        user: As Databricks knows them, for example "ana@contoso.com".
        name: Last part of the path, for example "iris".
        folder: Folders in between, for example "trials/2013"; none by default.

    Returns:
        For example "/Users/ana@contoso.com/trials/2013/iris".

    Raises:
        ExperimentPathError: A part is empty, or user or name contains a slash.
    """
    for what, value in (("user", user), ("name", name)):
        if not value.strip() or "/" in value:
            raise ExperimentPathError(
                f"experiment {what} must be one part of a path: got {value!r}; "
                "give folders with the argument 'folder'"
            )
    middle = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return normal_path(f"/Users/{user}/{middle}{name}")


def normal_path(path: str) -> str:
    """Return the path as MLflow knows it: without the `/Workspace` that the file browser shows.

    Args:
        path: For example "/Workspace/Users/ana@contoso.com/iris".

    Returns:
        For example "/Users/ana@contoso.com/iris".

    Raises:
        ExperimentPathError: The path is relative, or has an empty part.
    """
    if not path.startswith("/"):
        raise ExperimentPathError(
            f"experiment path must be absolute: got {path!r}; use for example '/Users/<user>/iris'"
        )
    parts = path[1:].split("/")
    if parts[0] == "Workspace":
        del parts[0]
    if not parts or not all(part.strip() for part in parts):
        raise ExperimentPathError(
            f"experiment path must have no empty part: got {path!r}; "
            "use for example '/Users/<user>/iris'"
        )
    return "/" + "/".join(parts)


def experiment_name(path: str) -> str:
    """Return the Azure ML experiment name for a Databricks experiment path.

    Databricks names an experiment by where it is saved, Azure ML by a bare name. Two
    different paths never share a name: a short hash of the whole path ends it.

    Args:
        path: Absolute workspace path, for example "/Users/ana@contoso.com/iris".

    Returns:
        A name of 1 to 256 characters, for example "iris-145f1174": ASCII letters, digits, `_`
        and `-`, the first one a letter or digit.

    Raises:
        ExperimentPathError: The path is relative, or has an empty part.

    Source:
        Microsoft Learn, "Track Azure Databricks ML experiments with MLflow and Azure
        Machine Learning"; name rule of the Azure ML run history service, seen 2026-11.
    """
    path = normal_path(path)
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    # "é" becomes "e" and an accent, which goes; what has no Latin base becomes one dash.
    letters = unicodedata.normalize("NFKD", path.rpartition("/")[2])
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", letters).strip("-_") or "experiment"
    return f"{stem[: _LONGEST_NAME - _HASH_LENGTH - 1]}-{digest}"
