"""Azure Databricks and Azure Machine Learning as one MLflow platform.

One folder a step, in the order of the flow and of imports: a folder imports only from the
folders above its own in this list.

    _common     errors, deadlines and text; knows neither MLflow nor Spark nor Azure
    link        step 1: which Azure ML workspace, who tracks, who registers: `Link`
    azure       credentials without a sign-in page, and Azure ML's REST API
    models      step 3: a version in either registry: `register_model`, `copy_model_version`
    tracking    step 2: plain MLflow code goes where the link says: `connect`
    local       Spark with Delta, Databricks notebooks and the demo on a laptop: `local_spark`
    scoring     step 4: a table in, a table out: `score_table`
    serving     step 5: a model behind an endpoint: `try_endpoint`, `deploy_model`
    monitoring  step 6: drift of a scored table: `monitor_table`
    cluster     attach a cluster; `cluster/node` prepares each of its nodes
    doctor      checks that name a problem before a job fails: `run_doctor`
    testing     fixtures of pytest for tests of jobs and notebooks
    cli         the command `dbx-aml`

Public names load on demand, so `import dbx_aml` loads neither MLflow nor Spark.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbx_aml.cluster.experiment_path import experiment_path
    from dbx_aml.doctor.run import run_doctor
    from dbx_aml.doctor.status import status
    from dbx_aml.link.experiments import experiment_name
    from dbx_aml.link.link import Link
    from dbx_aml.link.workspace import AmlWorkspace
    from dbx_aml.local.samples import sample_flights
    from dbx_aml.local.spark import local_spark
    from dbx_aml.models.copy import copy_model_version
    from dbx_aml.models.pages import experiment_url, model_version_url, run_url
    from dbx_aml.models.register import register_model
    from dbx_aml.monitoring.monitor_table import monitor_table
    from dbx_aml.monitoring.result import MonitoringResult
    from dbx_aml.scoring.ledger import batches
    from dbx_aml.scoring.replay import ReplayResult, replay_batch
    from dbx_aml.scoring.result import ScoringResult
    from dbx_aml.scoring.score_table import score_table
    from dbx_aml.serving.deploy import deploy_model
    from dbx_aml.serving.endpoints import Endpoint
    from dbx_aml.serving.jobs import Job
    from dbx_aml.serving.local_server import try_endpoint
    from dbx_aml.serving.submit import submit_job
    from dbx_aml.tracking.connect import connect
    from dbx_aml.tracking.connection import Connection

    __version__: str

# The folders in import order; `tests/test_layers.py` compares each import with it.
FOLDERS = (
    "_common",
    "link",
    "azure",
    "models",
    "tracking",
    "local",
    "scoring",
    "serving",
    "monitoring",
    "cluster",
    "doctor",
    "testing",
    "cli",
)

__all__ = [
    "AmlWorkspace",
    "Connection",
    "Endpoint",
    "Job",
    "Link",
    "MonitoringResult",
    "ReplayResult",
    "ScoringResult",
    "__version__",
    "batches",
    "connect",
    "copy_model_version",
    "deploy_model",
    "experiment_name",
    "experiment_path",
    "experiment_url",
    "local_spark",
    "model_version_url",
    "monitor_table",
    "register_model",
    "replay_batch",
    "run_doctor",
    "run_url",
    "sample_flights",
    "score_table",
    "status",
    "submit_job",
    "try_endpoint",
]

_HOMES = {
    "AmlWorkspace": "dbx_aml.link.workspace",
    "Connection": "dbx_aml.tracking.connection",
    "Endpoint": "dbx_aml.serving.endpoints",
    "Job": "dbx_aml.serving.jobs",
    "Link": "dbx_aml.link.link",
    "MonitoringResult": "dbx_aml.monitoring.result",
    "ReplayResult": "dbx_aml.scoring.replay",
    "ScoringResult": "dbx_aml.scoring.result",
    "batches": "dbx_aml.scoring.ledger",
    "connect": "dbx_aml.tracking.connect",
    "experiment_name": "dbx_aml.link.experiments",
    "experiment_path": "dbx_aml.cluster.experiment_path",
    "experiment_url": "dbx_aml.models.pages",
    "model_version_url": "dbx_aml.models.pages",
    "run_url": "dbx_aml.models.pages",
    "copy_model_version": "dbx_aml.models.copy",
    "deploy_model": "dbx_aml.serving.deploy",
    "run_doctor": "dbx_aml.doctor.run",
    "local_spark": "dbx_aml.local.spark",
    "monitor_table": "dbx_aml.monitoring.monitor_table",
    "register_model": "dbx_aml.models.register",
    "replay_batch": "dbx_aml.scoring.replay",
    "sample_flights": "dbx_aml.local.samples",
    "score_table": "dbx_aml.scoring.score_table",
    "status": "dbx_aml.doctor.status",
    "submit_job": "dbx_aml.serving.submit",
    "try_endpoint": "dbx_aml.serving.local_server",
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
