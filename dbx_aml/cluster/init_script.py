"""Write settings into a copy of the init script, never a secret."""

import os
import re
import shlex
import tempfile
from importlib.resources import files

from dbx_aml._common.errors import ArgumentError
from dbx_aml.link.link import Link

SCRIPT_NAME = "dbx_aml_init.sh"
ON_FAILURE = ("continue", "stop")
_SETTINGS = re.compile(r"(?<=^# >>> settings >>>\n).*?(?=^# <<< settings <<<$)", re.M | re.S)
# How secrets look: one that Databricks fills in where it is a variable, never in a file; a token of
# Databricks, of Entra, a client secret of Entra, an account's key, a signed URL, a password in one.
_SECRET = re.compile(
    r"\{\{\s*secrets/|\bdapi[0-9a-f]{32}|\beyJ[\w-]{20,}\.|[\w.~-]{3}\dQ~[\w.~-]{31,34}"
    r"|AccountKey=|SharedAccessSignature|[?&]sig=|://[^/\s'\"@]*:[^/\s'\"@]+@"
)
_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|ACCOUNT_KEY|API_KEY", re.IGNORECASE)
_SHORTEST_SECRET = 8


def render(link: Link, *, wheelhouse_path: str | None = None, on_failure: str = "continue") -> str:
    """Return the init script with a link and settings in it, for a cluster that hides variables.

    Args:
        link: Who tracks, who registers; its secret stays a reference.
        wheelhouse_path: Folder on the cluster, for example "/Volumes/main/ml/wheelhouse".
        on_failure: "continue" or "stop".

    Raises:
        ArgumentError: A setting cannot be, or the script would hold a secret; the message does
            not.
    """
    if on_failure not in ON_FAILURE:
        raise ArgumentError(
            f"on_failure must be one of {list(ON_FAILURE)}: got {on_failure!r}; write it anew"
        )
    if wheelhouse_path is not None and not re.fullmatch(r"/[^\x00-\x1f]+", wheelhouse_path):
        raise ArgumentError(
            f"wheelhouse_path must be an absolute path on the cluster: got {wheelhouse_path!r}; "
            "use for example '/Volumes/<catalog>/<schema>/<volume>/wheelhouse'"
        )
    with tempfile.TemporaryDirectory() as folder:
        config = link.save(folder).read_text(encoding="utf-8").strip()
    chosen = "" if on_failure == ON_FAILURE[0] else on_failure  # the script's own default
    values = {"WHEELHOUSE_PATH": wheelhouse_path or "", "ON_FAILURE": chosen, "CONFIG": config}
    settings = "".join(f"BAKED_{name}={shlex.quote(value)}\n" for name, value in values.items())
    _refuse_secrets(settings)
    return _SETTINGS.sub(lambda _: settings, script())


def script() -> str:
    """Return the init script as it is, without settings in it."""
    return files("dbx_aml.cluster.node").joinpath(SCRIPT_NAME).read_text(encoding="utf-8")


def _refuse_secrets(settings: str) -> None:
    known = {
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }
    if _SECRET.search(settings) or any(value in settings for value in known):
        raise ArgumentError(
            "rendered init script must hold no secret: a setting has one, or looks like it; "
            "name it as {{secrets/<scope>/<key>}} in the cluster's spark_env_vars instead"
        )
