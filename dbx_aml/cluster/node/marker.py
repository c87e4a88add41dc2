"""The marker: a JSON file in which the init script records its changes to a node."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

from dbx_aml._common.json_content import parse_json, read_fields

MARKER_NAME = "marker.json"
MARKER_PATH = Path("/databricks/dbx_aml") / MARKER_NAME


@dataclass(frozen=True, kw_only=True)
class NodeMarker:
    """The record of a run of the init script on a node; the fields are the keys of the JSON object.

        {
          "status": "ok",
          "reason": null,
          "version": "0.2.0",
          "time": "2026-11-24T22:05:09+00:00",
          "runtime": "18.0",
          "python": "3.12.3",
          "is_driver": true,
          "packages_from": "wheelhouse /Volumes/main/ml/wheelhouse",
          "installed": {"azureml-mlflow": "1.62.0.post6", "dbx-aml": "0.2.0"},
          "messages": [],
          "steps": {"fetch": 0.4, "install": 2.1, "check": 1.0, "configure": 0.0},
          "variables": {"MLFLOW_TRACKING_URI": "azureml://...", "MLFLOW_REGISTRY_URI": "..."},
          "fingerprint": "5f70bf18..."
        }

    Args:
        status: "ok"; "failed", with a `reason`, also while the script runs and after it was killed.
        reason: Cause of a failure with the next step, on one line.
        version: Version of dbx-aml; "" if the script failed before it ran dbx-aml's wheel.
        time: Time of writing, ISO 8601 in UTC.
        runtime: Databricks Runtime, for example "18.0"; None if the node does not set its variable.
        python: Version of the cluster's Python.
        is_driver: Whether the node is the driver.
        packages_from: "wheelhouse <folder>" or "package index".
        installed: Version by name of each added package; of a failed run, of each package that the
            next run has to remove.
        messages: Warnings for people, one line each.
        steps: Seconds of each step by its name, in order.
        variables: Environment variables set for REPLs and executors.
        fingerprint: Hash of the script and its settings. With the same hash there is nothing to do.
    """

    status: Literal["ok", "failed"]
    reason: str | None = None
    version: str = ""
    time: str = ""
    runtime: str | None = None
    python: str = ""
    is_driver: bool = False
    packages_from: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the node is prepared."""
        return self.status == "ok"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Return the marker in a JSON text; unknown keys of a later release are ignored.

        Returns:
            None for the text "null".

        Raises:
            ValueError: The text is no marker. The message repeats none of it.
        """
        content = parse_json(text)
        if content is None:
            return None
        values = read_fields(content, cls, "status")
        values["messages"] = tuple(values.get("messages", ()))
        return cls(**values)

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_marker(path: str | Path = MARKER_PATH) -> NodeMarker | None:
    """Return the marker of this node.

    Args:
        path: File of the marker; only tests need it.

    Returns:
        None if there is no file: the script never ran on this node, or could not write. For a file
        that cannot be read, a marker with the status "failed" and the reason.
    """
    file = Path(path)
    try:
        return NodeMarker.from_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as err:
        problem = err.strerror or type(err).__name__
    except ValueError:
        problem = "it is no marker"
    return NodeMarker(
        status="failed",
        reason=f"{file} must be readable: {problem}; restart the cluster to write it again",
    )
