"""The file `config.json`: where Azure ML's tools look for one, read it, write it whole or not."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from dbx_aml._common.errors import LinkError

CONFIG_NAME = "config.json"
# Our own values in it, so that Azure ML's tools see only theirs.
CONFIG_KEY = "dbx_aml"
_SECRET_WORDS = ("secret", "password", "token")


def find_config(path: str | Path = ".") -> Path | None:
    """Return the `config.json` of a path as `MLClient.from_config` finds it, or None.

    Args:
        path: A file, or a folder to start from; its parents are looked through too.

    Source:
        azure-ai-ml 1.35 `MLClient.from_config`.
    """
    start = Path(path)
    return start if start.is_file() else next(_candidates(start), None)


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a `config.json`.

    Raises:
        LinkError: It cannot be read, is no JSON object, or holds a secret.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as err:
        why = err.strerror if isinstance(err, OSError) else "it is no JSON"
    else:
        why = "" if isinstance(content, dict) else f"it is a {type(content).__name__}"
    if why:
        # Outside of the handler: JSON's own error carries the file's text.
        raise LinkError(f"{file} must be a readable JSON object: {why}; write it anew")
    if is_link(content):
        refuse_secrets(content, str(file))
    return dict(content)


def is_link(content: Mapping[str, Any]) -> bool:
    """Tell whether this is Azure ML's or our own `config.json`: other tools use the name too."""
    return bool(content.keys() & {"subscription_id", "Scope", CONFIG_KEY})


def write_config(file: Path, content: Mapping[str, Any]) -> None:
    """Write a `config.json`: a reader sees the old file or the new one, never a half.

    Raises:
        LinkError: The place cannot be written to, or the content holds a secret.
    """
    refuse_secrets(content, str(file))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(content, stream, indent=4)
                stream.write("\n")
            # A cluster's other users read it too; there is no secret in it.
            Path(name).chmod(0o644)
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as err:
        raise LinkError(f"{file} must be writable: {err.strerror}; choose another path") from err


def refuse_secrets(content: Mapping[str, Any], where: str) -> None:
    """Refuse a secret's value where only a reference to it may be.

    Raises:
        LinkError: A key says that its text is a secret; the message has the key only.
    """
    for key, value in content.items():
        if isinstance(value, Mapping):
            refuse_secrets(value, where)
        elif (
            isinstance(value, str)
            and key != CONFIG_KEY
            and any(word in key.lower() for word in _SECRET_WORDS)
        ):
            raise LinkError(
                f"{where} must hold no secret: got text under {key!r}; write a reference, "
                '{"scope": "<scope>", "key": "<key>"} or {"env": "<variable>"}'
            )


def _candidates(folder: Path) -> Iterator[Path]:
    folders = [folder.resolve(), *folder.resolve().parents]
    # Azure ML's order: a `.azureml` far up goes before a plain file right here.
    for part, name in product((".azureml", "aml_config", ""), (CONFIG_NAME, "project.json")):
        yield from (file for one in folders if (file := one / part / name).is_file())
