"""Azure Databricks and Azure Machine Learning as one MLflow platform.

The flow, one step a module:

    1. link       `settings`     which Azure ML workspace, who tracks, who registers: `Link`
    2. track      `tracking`     plain MLflow code goes where the link says: `connect`
    3. register   `registry`     a new model or the next version: `register_model`
    4. score      `scoring`      a table in, a table out: `score_table`

Around it: `init_script` prepares a node of a cluster, `cluster` attaches it, `diagnosis` says what
is wrong before a job does (`doctor`), `in_force` shows a notebook what is set; `local` gives a
Spark session with Delta on a laptop, `sample` a table to try it on, `notebook` runs Databricks
notebooks there, `demo` all of them; `cli` is the command `dbx-aml`.

Public names load on demand, so `import dbx_aml` loads neither MLflow nor Spark.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbx_aml.diagnosis import doctor
    from dbx_aml.in_force import InForce
    from dbx_aml.local import local_spark
    from dbx_aml.registry import register_model
    from dbx_aml.sample import sample_flights
    from dbx_aml.scoring.job import score_table
    from dbx_aml.scoring.result import ScoringResult
    from dbx_aml.settings import Link
    from dbx_aml.tracking.connect import connect
    from dbx_aml.tracking.connection import Connection
    from dbx_aml.workspace import AmlWorkspace

    __version__: str

__all__ = [
    "AmlWorkspace",
    "Connection",
    "InForce",
    "Link",
    "ScoringResult",
    "__version__",
    "connect",
    "doctor",
    "local_spark",
    "register_model",
    "sample_flights",
    "score_table",
]

_HOMES = {
    "AmlWorkspace": "dbx_aml.workspace",
    "Connection": "dbx_aml.tracking.connection",
    "InForce": "dbx_aml.in_force",
    "Link": "dbx_aml.settings",
    "ScoringResult": "dbx_aml.scoring.result",
    "connect": "dbx_aml.tracking.connect",
    "doctor": "dbx_aml.diagnosis",
    "local_spark": "dbx_aml.local",
    "register_model": "dbx_aml.registry",
    "sample_flights": "dbx_aml.sample",
    "score_table": "dbx_aml.scoring.job",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dbx-aml")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
