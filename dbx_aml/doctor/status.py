"""The state of a session: the link in use, its origins, versions, and the init script's result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from dbx_aml._common.errors import LinkError
from dbx_aml._common.html import StyledCell, html_table
from dbx_aml._common.redact import redact
from dbx_aml.cluster.node.marker import MARKER_PATH, read_marker
from dbx_aml.local.spark import local_root
from dbx_aml.tracking.connect import current_connection
from dbx_aml.tracking.connection import Connection

_SUMMARY = ("mode", "tracking URI", "registry URI", "experiment")
_RED = "color: #d1242f; font-weight: 600"


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a session: a table in a notebook, a few lines as text.

    Args:
        values: Values by name, for example "tracking URI".
        paths: Files and folders that exist: "config", the link's file; "init_script", the marker of
            the init script; "local", the folder of the local tables outside of Databricks.
        failed: Names of the values that are shown in red.
    """

    values: Mapping[str, str]
    paths: Mapping[str, Path] = field(default_factory=dict)
    failed: frozenset[str] = frozenset()

    def __str__(self) -> str:
        summary = [f"{name} {self.values[name]}" for name in _SUMMARY if name in self.values]
        failed = [
            f"FAILED: {name} {self.values[name]}" for name in self.values if name in self.failed
        ]
        return "\n".join([", ".join(summary), *failed])

    def _repr_html_(self) -> str:
        styles = {name: _RED if name in self.failed else "" for name in self.values}
        return html_table(
            (StyledCell(name, styles[name]), StyledCell(text, styles[name]))
            for name, text in self.values.items()
        )


def status(connection: Connection | None = None) -> Status:
    """Return the state of this session.

    Args:
        connection: Connection to show. By default the one that `connect` returned last.

    Raises:
        LinkError: There is no connection yet.
    """
    import mlflow

    connection = connection or current_connection()
    if connection is None:
        raise LinkError("status must have a connection: got none; call dbx_aml.connect() first")
    paths, failed = {}, set()
    origins = list(dict.fromkeys(connection.link.origins.values()))
    files = [Path(origin) for origin in origins if origin.endswith(".json")]
    if files:
        paths["config"] = files[0]
    runtime = os.environ.get("DATABRICKS_RUNTIME_VERSION")
    values = {
        **connection.to_dict(),
        "origins": ", ".join(origins),
        # A cluster may have only mlflow-skinny, which has the same module.
        "versions": f"dbx-aml {version('dbx-aml')}, mlflow {mlflow.__version__}",
        "runtime": runtime or "this machine, not Databricks",
    }
    marker = read_marker(MARKER_PATH)
    if marker is not None:
        paths["init_script"] = MARKER_PATH
        values["init script"] = f"{marker.status} {marker.time}".strip()
        if not marker.is_ok:
            failed.add("init script")
            values["init script"] += f": {marker.reason}"
    if runtime is None:
        paths["local"] = local_root()
    # The marker is a file of the node.
    values = {name: redact(text) for name, text in values.items()}
    return Status(values=values, paths=paths, failed=frozenset(failed))
