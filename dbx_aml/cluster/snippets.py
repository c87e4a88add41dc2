"""Text to paste into the definition of a job, of serverless compute or of a cluster policy.

The clusters of a job and serverless compute do not exist before a run, so nothing can be attached.
The text refers to files in a folder, which have to be uploaded first.
"""

import json
from typing import Any

from dbx_aml.cluster.files import FolderFiles
from dbx_aml.link.config_file import CONFIG_NAME

_JOB = """\
# Databricks makes a new cluster for each run of a job. Paste this into the job, in databricks.yml
# or in the YAML view of its page:
job_clusters:
  - job_cluster_key: main
    new_cluster:
"""
_SERVERLESS = """\
# Serverless compute has neither init scripts nor environment variables of a cluster. Paste this
# into the job, and `environment_key: dbx_aml` into each of its tasks that is not a notebook:
environments:
  - environment_key: dbx_aml
    spec:
      environment_version: "4"
      dependencies:
"""


def policy_snippet(files: FolderFiles) -> str:
    """Return the JSON of a cluster policy, as 'databricks cluster-policies create' takes it."""
    fixed = {f"spark_env_vars.{name}": value for name, value in files.variables.items()}
    for kind, storage in (files.script or {}).items():
        fixed[f"init_scripts.0.{kind}.destination"] = storage["destination"]
    definition = {name: {"type": "fixed", "value": value} for name, value in fixed.items()}
    # The policies API takes the definition as a JSON document inside of a string.
    policy: dict[str, Any] = {
        "name": "dbx-aml",
        "definition": json.dumps(definition, indent=2),
    }
    if files.libraries:
        policy["libraries"] = [dict(library) for library in files.libraries]
    return json.dumps(policy, indent=2)


def job_snippet(files: FolderFiles) -> str:
    """Return the YAML of a job's cluster with the init script."""
    lines = ["      init_scripts:"]
    for kind, storage in (files.script or {}).items():
        lines += [
            f"        - {kind}:",
            f"            destination: {json.dumps(storage['destination'])}",
        ]
    return _JOB + "\n".join(lines)


def serverless_snippet(files: FolderFiles) -> str:
    """Return the YAML of a serverless environment with the wheels."""
    # A job's dependencies are installed together, so their order does not matter.
    lines = [f"        - {json.dumps(library['whl'])}" for library in files.libraries]
    config = files.folder.file_path(CONFIG_NAME)
    return _SERVERLESS + "\n".join([*lines, f'# In code: dbx_aml.connect(config="{config}")'])
