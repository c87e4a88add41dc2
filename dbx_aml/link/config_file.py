"""The file `config.json`: where Azure ML's tools look for it, how it is read and written."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import LinkError
from dbx_aml._common.paths import write_atomically
from dbx_aml._common.redact import refuse_secrets

CONFIG_NAME = "config.json"
# Key of this package's settings in the file: Azure ML's tools ignore it.
CONFIG_KEY = "dbx_aml"


def find_config(path: str | Path = ".") -> Path | None:
    """Return the `config.json` of a path as `MLClient.from_config` finds it, or None.

    Args:
        path: File, or folder to start from; its parents are searched too.

    Source:
        azure-ai-ml 1.35 `MLClient.from_config`.
    """
    start = Path(path)
    return start if start.is_file() else next(_candidate_files(start), None)


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a `config.json`.

    Raises:
        LinkError: The file cannot be read, is no JSON object, or holds a secret.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as err:
        problem = err.strerror if isinstance(err, OSError) else "it is no JSON"
    else:
        problem = "" if isinstance(content, dict) else f"it is a {type(content).__name__}"
    if problem:
        # Outside of the handler: JSON's own error carries the text of the file.
        raise LinkError(f"{file} must be a readable JSON object: {problem}; write it again")
    if is_link_config(content):
        refuse_secrets(content, str(file))
    return dict(content)


def is_link_config(content: Mapping[str, Any]) -> bool:
    """Tell whether a `config.json` is Azure ML's or this package's: other tools use the name."""
    return bool(content.keys() & {"subscription_id", "Scope", CONFIG_KEY})


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


def _candidate_files(folder: Path) -> Iterator[Path]:
    folders = [folder.resolve(), *folder.resolve().parents]
    # Azure ML's order: a `.azureml` in a distant parent counts before a plain file in the folder.
    for subfolder, name in product((".azureml", "aml_config", ""), (CONFIG_NAME, "project.json")):
        for parent in folders:
            file = parent / subfolder / name
            if file.is_file():
                yield file
