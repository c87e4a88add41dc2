"""The file `config.json`: where Azure ML's tools look for it, how it is read and written.

A file that the caller names is the caller's choice. A file that was only found, in the current
folder or above it, may be a stranger's: it came with a cloned repository, or another user wrote it.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import LinkError
from dbx_aml._common.json_content import check_types, parse_json
from dbx_aml._common.log import get_logger
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.redact import has_secret, redact_uri

CONFIG_NAME = "config.json"
# Key of this package's settings in the file: Azure ML's tools ignore it.
CONFIG_KEY = "dbx_aml"
# Key of older files: the ARM id of the workspace, which counts before the three names.
SCOPE_KEY = "Scope"
# Types of Azure ML's own keys, and of the settings under CONFIG_KEY.
_WORKSPACE_TYPES = dict.fromkeys(
    ("subscription_id", "resource_group", "workspace_name", SCOPE_KEY), str | None
)
SETTING_TYPES: Mapping[str, Any] = {
    "mode": str | None,
    "registry": str | None,
    "experiment": str | None,
    "databricks_tracking_uri": str | None,
    "tenant_id": str | None,
    "client_id": str | None,
    "client_secret": str | Mapping[str, str] | None,
    "service_credential": str | None,
    "retry_timeout_s": float | str | None,
    "subscription_id": str | None,
    "resource_group": str | None,
    "workspace_name": str | None,
    "region": str | None,
    "cloud": str | None,
    "aml_tracking_uri": str | None,
}
_MAX_BYTES = 2**20
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Databricks shows these files with one owner and all permissions; its own access lists count there.
_DATABRICKS_WORKSPACE = Path("/Workspace")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_LOCAL_SERVER = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?(?:/[^\\@]*)?", re.IGNORECASE
)
_SERVER_SETTINGS = ("databricks_tracking_uri", "aml_tracking_uri")

log = get_logger(__name__)
# Keys whose text is a secret, whatever it looks like.
_SECRET_KEYS = ("secret", "password", "token")


def find_config(path: str | Path = ".") -> Path | None:
    """Return the `config.json` of a path as `MLClient.from_config` finds it, or None.

    A file that a folder leads to counts only if `first_trusted_file` takes it.

    Args:
        path: File, or folder to start from; its parents are searched too.

    Source:
        azure-ai-ml 1.35 `MLClient.from_config`.
    """
    start = Path(path)
    return start if start.is_file() else first_trusted_file(_candidate_files(start))


def first_trusted_file(files: Iterable[Path]) -> Path | None:
    """Return the first file that only the caller or root can write, or None.

    A file that does not count is named in one warning.
    """
    for file in files:
        try:
            reason = _distrust_reason(file)
        except OSError:
            continue  # no such file
        if not reason:
            return file
        _warn_once(file, reason)
    return None


def refuse_remote_servers(file: Path, content: Mapping[str, Any]) -> None:
    """Refuse a server that a file chooses which was only found: MLflow would send it its login.

    Args:
        file: The file, for the message.
        content: Content of the file.

    Raises:
        LinkError: A setting is the URL of an MLflow server on another machine.
    """
    settings = content.get(CONFIG_KEY)
    for name in _SERVER_SETTINGS:
        uri = settings.get(name) if isinstance(settings, Mapping) else None
        if isinstance(uri, str) and _HTTP.search(uri) and not _LOCAL_SERVER.fullmatch(uri):
            raise LinkError(
                f"{name} must not be a server in a {CONFIG_NAME} that was only found: got "
                f"{redact_uri(uri)!r} in {file}; name the file with --config or DBX_AML_CONFIG "
                "if you trust it"
            )


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a `config.json`; the keys of a link in it have the right types.

    Raises:
        LinkError: The file cannot be read, is no JSON object, has a value of a wrong type, or holds
            a secret. The message repeats no text of the file.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("it is larger than 1 MB")
        content = parse_json(text)
        check_types(content, {})
    except OSError as err:
        problem = err.strerror
    except ValueError as err:
        problem = str(err)
    else:
        problem = ""
    if problem:
        raise LinkError(f"{file} must be a readable JSON object: {problem}; write it again")
    if is_link_config(content):
        _check_link_types(content, file)
        refuse_secrets(content, str(file))
    return dict(content)


def _check_link_types(content: Mapping[str, Any], file: Path) -> None:
    try:
        check_types(content, {**_WORKSPACE_TYPES, CONFIG_KEY: Mapping[str, Any] | None})
        settings = content.get(CONFIG_KEY) or {}
        check_types(settings, SETTING_TYPES)
        for values, keys in ((content, _WORKSPACE_TYPES), (settings, SETTING_TYPES)):
            for key in keys:
                if _CONTROL_CHARACTER.search(str(values.get(key))):
                    raise ValueError(f"{key} must have no control characters")
    except ValueError as err:
        raise LinkError(
            f"{file} must have settings of the right types: {err}; correct it, or write it with "
            "'dbx-aml link set'"
        ) from None


def is_link_config(content: Mapping[str, Any]) -> bool:
    """Tell whether a `config.json` is Azure ML's or this package's: other tools use the name."""
    return bool(content.keys() & {"subscription_id", SCOPE_KEY, CONFIG_KEY})


def config_text(content: Mapping[str, Any], location: str = CONFIG_NAME) -> str:
    """Return the text of a `config.json`.

    Args:
        content: Content of the file.
        location: Name of the file in the error.

    Raises:
        LinkError: The content holds a secret.
    """
    refuse_secrets(content, location)
    return f"{json.dumps(content, indent=4)}\n"


def write_config(file: Path, content: Mapping[str, Any]) -> None:
    """Write a `config.json`; every user of the machine may read it, for it holds no secret.

    Raises:
        LinkError: The file cannot be written, or the content holds a secret.
    """
    text = config_text(content, str(file))
    try:
        write_atomically(file, text)
    except OSError as err:
        raise LinkError(f"{file} must be writable: {err.strerror}; choose another path") from err


def refuse_secrets(content: Mapping[str, Any], location: str) -> None:
    """Refuse a secret's text in a place that others read, and that may only hold references.

    Args:
        content: Values by name; nested mappings and lists are checked too.
        location: Name of the place in the message.

    Raises:
        LinkError: A value is a secret, or a URI with a login. The message has the name only.
    """
    for name, value in content.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                refuse_secrets(item, location)
            elif isinstance(item, str) and any(word in name.lower() for word in _SECRET_KEYS):
                raise LinkError(
                    f"{location} must hold no secret: got text under {name!r}; write a reference, "
                    '{"scope": "<scope>", "key": "<key>"} or {"env": "<variable>"}'
                )
            elif isinstance(item, str) and has_secret(item, ()):
                raise LinkError(
                    f"{location} must hold no secret: got one in {name!r}; leave it out there, and "
                    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                    "MLFLOW_TRACKING_TOKEN"
                )


def _candidate_files(folder: Path) -> Iterator[Path]:
    folders = [folder.resolve(), *folder.resolve().parents]
    # Azure ML's order: a `.azureml` in a distant parent counts before a plain file in the folder.
    for subfolder, name in product((".azureml", "aml_config", ""), (CONFIG_NAME, "project.json")):
        for parent in folders:
            file = parent / subfolder / name
            if file.is_file():
                yield file


def _distrust_reason(file: Path) -> str:
    """Return why a file that was found may be a stranger's; "" if it counts."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(file)
    if os.name != "posix" or file.is_relative_to(_DATABRICKS_WORKSPACE):
        return ""
    strangers = {file.lstat().st_uid, status.st_uid} - {os.geteuid(), 0}
    if strangers:
        return f"it belongs to user {strangers.pop()}"
    # Many systems give each user a group of the same number, and new files to that group.
    has_own_group = status.st_gid == status.st_uid
    if status.st_mode & (stat.S_IWOTH if has_own_group else stat.S_IWOTH | stat.S_IWGRP):
        return "other users may write it"
    return ""


@cache
def _warn_once(file: Path, reason: str) -> None:
    log.warning(
        "%s does not count: %s; let only you write it (chmod go-w), "
        "or name it with --config or DBX_AML_CONFIG",
        file,
        reason,
    )
