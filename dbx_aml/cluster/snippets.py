"""What to paste where there is no cluster to attach: a job, serverless compute, a policy.

The files have to be in a folder first: those of `Parts`.
"""

import json
from typing import Any

from dbx_aml.cluster.attach_record import CONFIG, SCRIPT
from dbx_aml.cluster.files import Parts
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.policy import policy_definition, policy_libraries

_JOB = """\
# Databricks makes a new cluster for each run of a job: no cluster to attach, this is its recipe.
# Into the job, in databricks.yml or in the YAML of its page:
job_clusters:
  - job_cluster_key: main
    new_cluster:
"""
_SERVERLESS = """\
# Serverless compute has neither init scripts nor variables of a cluster. Into the job, and
# `environment_key: dbx_aml` into each of its tasks that is no notebook:
environments:
  - environment_key: dbx_aml
    spec:
      environment_version: "4"
      dependencies:
"""


def policy_text(folder: Folder, parts: Parts) -> str:
    """Return a cluster policy that prepares every cluster made by it, as its API takes it."""
    script = folder.location(SCRIPT) if parts.has_script else None
    definition = policy_definition(script, parts.variables(folder))
    # A document in the document: so the service wants it.
    found: dict[str, Any] = {"name": "dbx-aml", "definition": json.dumps(definition, indent=2)}
    if parts.libraries:
        found["libraries"] = policy_libraries(folder.file(name) for name in parts.libraries)
    return json.dumps(found, indent=2)


def job_cluster_text(folder: Folder, parts: Parts) -> str:
    """Return the part of a job's YAML that prepares its own cluster."""
    lines = ["      init_scripts:"]
    for kind, place in folder.location(SCRIPT).items():
        lines += [
            f"        - {kind}:",
            f"            destination: {json.dumps(place['destination'])}",
        ]
    lines.append("      spark_env_vars:")
    lines += [
        f"        {name}: {json.dumps(value)}" for name, value in parts.variables(folder).items()
    ]
    return _JOB + "\n".join(lines)


def serverless_text(folder: Folder, parts: Parts) -> str:
    """Return the part of a job's YAML that prepares serverless compute."""
    # A job's dependencies are installed together, so one wheel may need another.
    lines = [f"        - {json.dumps(folder.file(name))}" for name in parts.wheels]
    say = f'# In code: dbx_aml.connect(config="{folder.file(CONFIG)}")'
    return _SERVERLESS + "\n".join([*lines, say])
