"""What is in force in a notebook: a few lines for its first cell, without any call to a host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape

from dbx_aml import marker
from dbx_aml.errors import DbxAmlError
from dbx_aml.settings import Link
from dbx_aml.tracking.uris import registry_in_force, tracking_in_force, without_login

_EXPERIMENTS = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What counts here; prints as a small table, in a notebook with problems in red.

    Args:
        facts: What there is to say, by its name.
        problems: Those of the facts that are wrong.
    """

    facts: dict[str, str]
    problems: frozenset[str]

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join(
            f"{name:<{width}}  {'PROBLEM: ' if name in self.problems else ''}{text}"
            for name, text in self.facts.items()
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left{';color:#c00' if name in self.problems else ''}'>"
            f"{escape(text)}</td></tr>"
            for name, text in self.facts.items()
        )
        return f"<table>{rows}</table>"


def in_force() -> Overview:
    """Return mode, both of MLflow's URIs with who set them, experiment, and the init script's end.

    Nothing is asked and nothing is raised: `doctor` looks closer.
    """
    facts, problems = {}, set()
    experiment = next(
        (os.environ[name] for name in _EXPERIMENTS if os.environ.get(name)), "MLflow's default"
    )
    try:
        link = Link.load()
    except DbxAmlError as err:
        facts["mode"] = str(err)
        problems.add("mode")
    else:
        facts["mode"] = f"{link.mode} ({link.origins.get('mode', 'default')})"
        experiment = link.experiment or experiment
    for name, said in (
        ("tracking URI", tracking_in_force()),
        ("registry URI", registry_in_force()),
    ):
        facts[name] = f"{without_login(said.uri)} ({said.who})"
    facts["experiment"] = experiment
    found = marker.read_marker(marker.MARKER_PATH)
    if found is not None:
        done = f"done, dbx-aml {found.version}" if found.is_good else f"{found.state}, see its log"
        facts["init script"] = found.reason or done
        if not found.is_good:
            problems.add("init script")
    return Overview(facts=facts, problems=frozenset(problems))
