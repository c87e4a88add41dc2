"""What is in force in a notebook: the link, who said it, versions, the init script's word."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dbx_aml.cluster.node.marker import MARKER_PATH, read_marker
from dbx_aml.local.spark import local_root

if TYPE_CHECKING:
    from dbx_aml.tracking.connection import Connection

_SHORT = ("mode", "tracking URI", "registry URI", "experiment")
_RED = "color: #d1242f; font-weight: 600"


@dataclass(frozen=True, kw_only=True)
class InForce:
    """A table for people: a notebook shows it as HTML; as text it is one line.

    Args:
        rows: What there is to say, by its name.
        paths: Where to look: "config", the file that said something, "init_script", the init
            script's marker, "local", where a laptop keeps its tables; each only if it is there.
        wrong: Names of rows to show in red.
    """

    rows: Mapping[str, str]
    paths: Mapping[str, Path] = field(default_factory=dict)
    wrong: frozenset[str] = frozenset()

    @classmethod
    def of(cls, connection: Connection, marker: Path = MARKER_PATH) -> Self:
        """Return what is in force with this connection.

        Args:
            connection: As `connect` returns it.
            marker: The init script's; another one in tests.
        """
        import mlflow

        paths = {}
        said = list(dict.fromkeys(connection.link.origins.values()))
        files = [Path(one) for one in said if one.endswith(".json")]
        if files:
            paths["config"] = files[0]
        runtime = os.environ.get("DATABRICKS_RUNTIME_VERSION")
        rows = {
            **connection.to_dict(),
            "said by": ", ".join(said),
            # A cluster may have only mlflow-skinny, under that name.
            "versions": f"dbx-aml {version('dbx-aml')}, mlflow {mlflow.__version__}",
            "runtime": runtime or "this machine, not Databricks",
        }
        wrong = set()
        found = read_marker(marker)
        if found is not None:
            paths["init_script"] = marker
            rows["init script"] = f"{found.status} {found.time}".strip()
            if not found.is_ok:
                wrong.add("init script")
                rows["init script"] += f": {found.reason or 'it did not end'}"
        if runtime is None:
            paths["local"] = local_root()
        return cls(rows=rows, paths=paths, wrong=frozenset(wrong))

    def __str__(self) -> str:
        """Return the short form, for a terminal: where things go, and what is wrong."""
        short = [f"{name} {self.rows[name]}" for name in _SHORT if name in self.rows]
        wrong = [f"WRONG: {name} {self.rows[name]}" for name in self.rows if name in self.wrong]
        return "\n".join([", ".join(short), *wrong])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr style="{_RED if name in self.wrong else ""}">'
            f'<th style="text-align: left; padding-right: 1.5em">{escape(name)}</th>'
            f'<td style="text-align: left">{escape(text)}</td></tr>'
            for name, text in self.rows.items()
        )
        return f"<table>{rows}</table>"
