"""Settings for REPLs and executors: variables in Spark's `spark-env.sh`, and `config.json`."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from dbx_aml._common.errors import LinkError
from dbx_aml._common.paths import write_atomically
from dbx_aml.link.config_file import CONFIG_NAME, refuse_secrets, write_config
from dbx_aml.link.link import Link

SPARK_ENV = Path("spark/conf/spark-env.sh")
OWN_FOLDER = Path("dbx_aml")
_BEGIN_LINE = "# >>> dbx-aml >>>"
_END_LINE = "# <<< dbx-aml <<<"
# Ends the first line of a block before which a line feed had to be added.
_AFTER_OPEN_LINE = " (the line above had no end)"
_BLOCK = re.compile(
    rf"(\n{_BEGIN_LINE}{re.escape(_AFTER_OPEN_LINE)}|^{_BEGIN_LINE})$.*?^{_END_LINE}$\n?".encode(),
    re.DOTALL | re.MULTILINE,
)


def link_variables(link: Link, home: Path) -> dict[str, str]:
    """Return the environment variables through which MLflow and this package use a link.

    No value is a secret: every user of the cluster can read them.

    Args:
        link: Link of the cluster.
        home: Databricks' folder on the node.

    Raises:
        LinkError: A value is a secret, or has a line break, which a line of a shell file cannot
            hold.
    """
    variables = {"DBX_AML_CONFIG": str(home / OWN_FOLDER / CONFIG_NAME)}
    # Both are always set: the default of each depends on the other.
    for name, uri in (
        ("MLFLOW_TRACKING_URI", link.tracking_uri),
        ("MLFLOW_REGISTRY_URI", link.registry_uri),
    ):
        if uri is not None:
            variables[name] = uri
    if link.uses_azure_ml and link.aml_workspace is not None:
        # Without it azureml-mlflow asks a host of the public cloud first, for up to 30 s.
        variables["AZUREML_CURRENT_CLOUD"] = link.aml_workspace.cloud
        variables["DBX_AML_RETRY_TIMEOUT_S"] = f"{link.retry_timeout_s:g}"
    refuse_secrets(variables, "environment of the cluster")
    for name, value in variables.items():
        if not value.isprintable():
            raise LinkError(f"{name} must be printable text: got {value!r}; correct the link")
    return variables


def write_variables(variables: Mapping[str, str], home: Path) -> None:
    """Write the variables to `spark-env.sh` as one marked block; replace an existing block.

    Args:
        variables: Value by name. Without variables the block is removed.
        home: Databricks' folder on the node.
    """
    file = home / SPARK_ENV
    current, mode = b"", 0o755
    if file.exists():
        # As bytes: the file is others', in any encoding.
        current, mode = file.read_bytes(), file.stat().st_mode & 0o7777
    content = _BLOCK.sub(b"", current)
    if variables:
        is_open = bool(content) and not content.endswith(b"\n")
        begin_line = f"\n{_BEGIN_LINE}{_AFTER_OPEN_LINE}" if is_open else _BEGIN_LINE
        exports = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
        content += "\n".join([begin_line, *exports, _END_LINE, ""]).encode()
    if content != current:
        write_atomically(file, content, mode=mode)


def write_link(link: Link, home: Path) -> None:
    """Write the link's `config.json` to the folder in which all processes of the node find it."""
    write_config(home / OWN_FOLDER / CONFIG_NAME, link.to_dict())
