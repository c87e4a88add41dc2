"""Render the init script: a copy of it that contains the link and the settings of a cluster."""

import re
import shlex
from importlib.resources import files

from dbx_aml._common.errors import ArgumentError
from dbx_aml._common.redact import has_secret
from dbx_aml.link.link import Link

SCRIPT_NAME = "dbx_aml_init.sh"
ON_FAILURE = ("continue", "stop")
DEFAULT_TIMEOUT_S = 300
_SETTINGS = re.compile(r"(?<=^# >>> settings >>>\n).*?(?=^# <<< settings <<<$)", re.M | re.S)
# Databricks replaces this reference in a cluster's variables, but not in a script.
_SECRET_REFERENCE = re.compile(r"\{\{\s*secrets/")


def render(
    link: Link,
    *,
    wheelhouse_path: str = "",
    wheelhouse_sha256: str = "",
    requirements: str = "",
    on_failure: str = "continue",
    init_timeout_s: int = DEFAULT_TIMEOUT_S,
) -> str:
    """Return the init script with a link and settings in it.

    Args:
        link: Link of the cluster. Its secret stays a reference.
        wheelhouse_path: Folder on the cluster, for example "/Volumes/main/ml/wheelhouse".
        wheelhouse_sha256: SHA-256 of its list of hashes. The script runs no wheel that this list
            does not have.
        requirements: List of hashes, instead of a wheelhouse: the nodes' package index has each of
            its wheels, also the one of this package.
        on_failure: "continue" to start the cluster without dbx-aml, or "stop".
        init_timeout_s: Longest time of the script in seconds, for example 300.

    Raises:
        ArgumentError: A setting is invalid, or the script would contain a secret. The message does
            not contain the secret.
        LinkError: A value of the link is a secret, or a URI with a login.
    """
    if on_failure not in ON_FAILURE:
        raise ArgumentError(
            f"on_failure must be one of {list(ON_FAILURE)}: got {on_failure!r}; use one of them"
        )
    if not requirements and not re.fullmatch(r"/[^\x00-\x1f]+", wheelhouse_path):
        raise ArgumentError(
            f"wheelhouse_path must be an absolute path on the cluster: got {wheelhouse_path!r}; "
            "use for example '/Volumes/<catalog>/<schema>/<volume>/wheelhouse'"
        )
    if not requirements and not re.fullmatch(r"[0-9a-f]{64}", wheelhouse_sha256):
        raise ArgumentError(
            "wheelhouse_sha256 must have 64 hexadecimal digits in lower case: got "
            f"{wheelhouse_sha256!r}; use the output of 'sha256sum wheelhouse/requirements.txt'"
        )
    values = {
        "WHEELHOUSE_PATH": wheelhouse_path,
        "WHEELHOUSE_SHA256": wheelhouse_sha256,
        "REQUIREMENTS": requirements.strip(),
        # Empty is the default of the script itself.
        "ON_FAILURE": "" if on_failure == "continue" else on_failure,
        "INIT_TIMEOUT_S": "" if init_timeout_s == DEFAULT_TIMEOUT_S else str(init_timeout_s),
        "CONFIG": link.to_json("rendered init script").strip(),
    }
    settings = "".join(f"BAKED_{name}={shlex.quote(value)}\n" for name, value in values.items())
    if _SECRET_REFERENCE.search(settings) or has_secret(settings):
        raise ArgumentError(
            "rendered init script must hold no secret: a setting is one, or looks like one; "
            "set it as {{secrets/<scope>/<key>}} in the cluster's spark_env_vars instead"
        )
    return _SETTINGS.sub(lambda _: settings, read_init_script())


def read_init_script() -> str:
    """Return the text of the init script without settings."""
    return files("dbx_aml.cluster.node").joinpath(SCRIPT_NAME).read_text(encoding="utf-8")
