"""The path of the signed-in user's experiment: `experiment_path`."""

from __future__ import annotations

import configparser
import getpass
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from dbx_aml._common.databricks_runtime import running_version
from dbx_aml._common.errors import ExperimentPathError, NotFoundError, ServiceError
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import one_line
from dbx_aml.cluster.client import Client
from dbx_aml.link.connected_link import connected_link
from dbx_aml.link.experiments import normalize_experiment_path, user_experiment_path
from dbx_aml.link.uris import is_databricks_uri
from dbx_aml.local.spark import active_session, current_spark, is_connect

log = get_logger(__name__)

# Every workspace has these folders.
_GIVEN_FOLDERS = ("/", "/Shared", "/Users")
_WORKSPACE_FILES = Path("/Workspace")


def experiment_path(name: str, folder: str | None = None, user: str | None = None) -> str:
    """Return the Databricks path of an experiment, in the home folder of the signed-in user.

    MLflow creates an experiment only in a folder that exists, so a missing folder is made. The
    signed-in user is the person or the service principal that runs a notebook or a job on
    Databricks, that a Databricks Connect session belongs to, or that databricks-sdk signs in on
    another machine. On a machine without Databricks it is the user of the machine, with a warning.

    Args:
        name: Name of the experiment, for example "iris"; or a whole path, for example
            "/Shared/iris".
        folder: Folders below the user's, for example "team/2026"; none by default.
        user: Databricks user name of the folder's owner, for example "ana@contoso.com"; by default
            the signed-in user.

    Returns:
        For example "/Users/ana@contoso.com/team/iris".

    Raises:
        ExperimentPathError: A name has a slash or is empty, or the folder is a Git folder or cannot
            be made.
        ClusterError: Databricks is configured, but databricks-sdk is not installed.
        ServiceError: Databricks does not answer, or refuses the token.

    Source:
        Databricks, "Git folders limitations and FAQ": a workspace experiment cannot be in a Git
        folder; SQL function `current_user`.
    """
    if name.startswith("/"):
        if folder or user:
            raise ExperimentPathError(
                f"experiment must be a name or a whole path: got {name!r} with folder or user; "
                "leave folder and user out"
            )
        path = normalize_experiment_path(name)
        _make_parent(path, None)
        return path
    client = None
    if user is None:
        user, client = _signed_in_user()
    path = user_experiment_path(user, name, folder or "")
    if folder:
        _make_parent(path, client)
    return path


def _signed_in_user() -> tuple[str, Client | None]:
    """Return the name of the signed-in user, and the client that knows it, if one was made."""
    session: Any = current_spark() if running_version() else _remote_session()
    if session is not None:
        return str(session.sql("SELECT current_user()").first()[0]), None
    if not _is_configured():
        user = getpass.getuser()
        log.warning(
            "experiment path has this machine's user %s: Databricks is not set up here; set "
            "DATABRICKS_HOST and DATABRICKS_TOKEN for the path in a workspace",
            user,
        )
        return user, None
    client = Client(_profile())
    return client.user, client


def _remote_session() -> Any:
    """Return the active Spark Connect session of another machine, or None."""
    session: Any = active_session() if "pyspark" in sys.modules else None
    if session is None or not is_connect(session):
        return None
    return None if session.client.host in ("localhost", "127.0.0.1") else session


def _profile() -> str | None:
    """Return the profile that the connected link names, for example "prod"."""
    link = connected_link()
    uri = link.databricks_tracking_uri if link is not None else ""
    return uri.partition("://")[2] or None if is_databricks_uri(uri) else None


def _is_configured() -> bool:
    """Return whether databricks-sdk would find a workspace on this machine."""
    if os.environ.get("DATABRICKS_HOST") or os.environ.get("DATABRICKS_CONFIG_PROFILE"):
        return True
    file = os.environ.get("DATABRICKS_CONFIG_FILE") or Path.home() / ".databrickscfg"
    config = configparser.ConfigParser()
    try:
        config.read(file)
    except (OSError, configparser.Error):
        return True  # the SDK has the better error
    return "host" in config.defaults() or _profile() is not None


def _make_parent(path: str, client: Client | None) -> None:
    """Make the folder of an experiment, where Databricks is near enough to make it.

    Raises:
        ExperimentPathError: The folder is in a Git folder, or cannot be made.
    """
    parent = str(PurePosixPath(path).parent)
    if parent.startswith("/Repos/"):
        raise _git_folder_error(path, parent)
    if parent in _GIVEN_FOLDERS:
        return
    if running_version():
        try:
            (_WORKSPACE_FILES / parent[1:]).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise _folder_error(path, parent, err) from err
        return
    if client is None and not _is_configured():
        return
    client = client or Client(_profile())
    git_folder = _find_git_folder(client, parent)
    if git_folder is not None:
        raise _git_folder_error(path, git_folder)
    try:
        with client.calls_to(f"make the folder {parent}") as databricks:
            databricks.workspace.mkdirs(parent)
    except ServiceError as err:
        raise _folder_error(path, parent, err) from err


def _find_git_folder(client: Client, folder: str) -> str | None:
    """Return the Git folder that a folder of the workspace is or lies in, or None."""
    from databricks.sdk.service.workspace import ObjectType

    for parent in [*reversed(PurePosixPath(folder).parents), folder]:
        try:
            with client.calls_to(f"read the folder {parent}") as databricks:
                status = databricks.workspace.get_status(str(parent))
        except NotFoundError:
            return None
        if status.object_type == ObjectType.REPO:
            return str(parent)
    return None


def _git_folder_error(path: str, git_folder: str) -> ExperimentPathError:
    return ExperimentPathError(
        f"experiment must be outside of Git folders: got {path!r} in {git_folder!r}; "
        "use for example '/Users/<user>/iris'"
    )


def _folder_error(path: str, parent: str, err: Exception) -> ExperimentPathError:
    return ExperimentPathError(
        f"folder of an experiment must exist: got {path!r}, and {parent!r} cannot be made: "
        f"{one_line(err, 200)}; make it, or name another folder"
    )
