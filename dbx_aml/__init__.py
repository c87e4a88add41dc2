"""Azure Databricks and Azure Machine Learning as one MLflow platform.

The flow, one step a module:

    1. track      `experiment`   one experiment, its path in Databricks and its name in Azure ML
    2. register   `model_uri`    which model, which version
                  `registry`     a new model or the next version: `register_model`
    3. score      `scoring`      a table in, a table out: `score_table`

Around it: `local` gives a Spark session with Delta on a laptop, `notebook` runs Databricks
notebooks there, `demo` runs all of them, `cli` is the command `dbx-aml`.

Public names load on demand, so `import dbx_aml` loads neither MLflow nor Spark.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbx_aml.local import local_spark
    from dbx_aml.registry import register_model
    from dbx_aml.scoring.job import ScoringResult, score_table

    __version__: str

__all__ = ["ScoringResult", "__version__", "local_spark", "register_model", "score_table"]

_HOMES = {
    "ScoringResult": "dbx_aml.scoring.job",
    "local_spark": "dbx_aml.local",
    "register_model": "dbx_aml.registry",
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
