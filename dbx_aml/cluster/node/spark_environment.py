"""What REPLs and executors read: variables in Spark's `spark-env.sh`, and `config.json`."""

import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dbx_aml._common.errors import LinkError
from dbx_aml.link.config_file import CONFIG_NAME, read_config, write_config
from dbx_aml.link.link import Link

SPARK_ENV = Path("spark/conf/spark-env.sh")
OWN_FOLDER = Path("dbx_aml")
_BEGIN = "# >>> dbx-aml >>>"
_END = "# <<< dbx-aml <<<"
_BLOCK = re.compile(rf"^{_BEGIN}$.*?^{_END}$\n?", re.DOTALL | re.MULTILINE)


def variables(link: Link, home: Path) -> dict[str, str]:
    """Return what plain MLflow code and this package read, as a link says; never a secret.

    Args:
        link: Who tracks and who registers.
        home: Databricks' folder on the node.

    Raises:
        LinkError: A value has a line break, which no line of a shell file can hold.
    """
    found = {"DBX_AML_CONFIG": str(home / OWN_FOLDER / CONFIG_NAME)}
    # Both, always: each has a default that depends on the other.
    for name, uri in (
        ("MLFLOW_TRACKING_URI", link.tracking_uri),
        ("MLFLOW_REGISTRY_URI", link.registry_uri),
    ):
        if uri is not None:
            found[name] = uri
    if link.uses_azure_ml and link.aml_workspace is not None:
        # Without it azureml-mlflow asks a host of the public cloud first, for up to 30 s.
        found["AZUREML_CURRENT_CLOUD"] = link.aml_workspace.cloud
        found["DBX_AML_RETRY_TIMEOUT_S"] = f"{link.retry_timeout_s:g}"
    for name, value in found.items():
        if not value.isprintable():
            raise LinkError(f"{name} must be printable text: got {value!r}; write it anew")
    return found


def is_written(values: Mapping[str, str], home: Path) -> bool:
    """Tell whether `spark-env.sh` has just these variables of ours."""
    file = home / SPARK_ENV
    return file.is_file() and _block(values) in file.read_text(encoding="utf-8")


def write_environment(values: Mapping[str, str], home: Path) -> None:
    """Put the variables into `spark-env.sh` as one marked block, in place of an earlier one.

    Args:
        values: Value by name; none removes the block.
        home: Databricks' folder on the node.
    """
    file = home / SPARK_ENV
    text, mode = "", 0o755
    if file.exists():
        text, mode = file.read_text(encoding="utf-8"), file.stat().st_mode & 0o7777
    made = _BLOCK.sub("", text)
    if values:
        made += "\n" if made and not made.endswith("\n") else ""
        made += _block(values)
    if made != text:
        write_whole(file, made, mode=mode)


def _block(values: Mapping[str, str]) -> str:
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    return f"{_BEGIN}\n{lines}{_END}\n"


def write_link(link: Link, home: Path, work: Path) -> None:
    """Write the link's `config.json` where every process of the node looks for it."""
    made = link.save(work / "link" / CONFIG_NAME)
    write_config(home / OWN_FOLDER / CONFIG_NAME, read_config(made))


def write_whole(file: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(mode)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
