"""The marker: what the init script says that it did to this node, as JSON in one file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

MARKER_PATH = Path("/databricks/dbx_aml/status.json")
STATES = ("started", "ok", "failed")


@dataclass(frozen=True, kw_only=True)
class Override:
    """A package of the runtime that is newer than one of ours allows, and was kept all the same.

    Args:
        package: For example "azure-storage-blob".
        version: What the runtime brought, for example "12.29.0".
        required_by: For example "azureml-mlflow 1.62.0.post6".
        requirement: The limit that was passed over, for example "<=12.27.1,>=12.5.0".
    """

    package: str
    version: str
    required_by: str
    requirement: str

    def __str__(self) -> str:
        return (
            f"{self.package} {self.version} kept, though {self.required_by} asks for "
            f"{self.requirement}"
        )


@dataclass(frozen=True, kw_only=True)
class Marker:
    """One run of the init script on one node; the fields are the keys of the JSON object.

        {
          "state": "ok",
          "reason": null,
          "version": "0.1.0",
          "time": "2026-11-24T22:05:09+00:00",
          "runtime": "18.0",
          "python": "3.12.3",
          "is_driver": true,
          "source": "wheelhouse /Volumes/main/ml/wheelhouse",
          "installed": {"azureml-mlflow": "1.62.0.post6", "dbx-aml": "0.1.0"},
          "overrides": [{"package": "azure-storage-blob", "version": "12.28.0",
                         "required_by": "azureml-mlflow 1.62.0.post6",
                         "requirement": "<=12.27.1,>=12.5.0"}],
          "notes": [],
          "steps": {"fetch": 0.4, "plan": 0.3, "install": 2.1, "check": 3.0, "configure": 0.0},
          "variables": {"MLFLOW_TRACKING_URI": "azureml://...", "MLFLOW_REGISTRY_URI": "..."},
          "fingerprint": "5f70bf18..."
        }

    Args:
        state: "ok"; "failed", and `reason` says why; "started" where the script is at work, or was
            killed.
        reason: Why it failed, one line, with the next step.
        version: Of dbx-aml; "" where it failed before that was known.
        time: When it was written, ISO 8601 in UTC.
        runtime: Databricks Runtime, for example "18.0"; None where the node does not say.
        python: Version of the cluster's Python.
        is_driver: Whether this is the driver's node.
        source: "index", or "wheelhouse <folder>".
        installed: Version by name of each package that was added. While `state` is "started",
            those that are about to be.
        overrides: Packages of the runtime that ours do not allow.
        notes: What else a person should know, one line each.
        steps: Seconds that each step took, by its name, in their order.
        variables: What was set for REPLs and executors.
        fingerprint: Hash of the script and its settings: the same again means nothing to do.
    """

    state: str
    reason: str | None = None
    version: str = ""
    time: str = ""
    runtime: str | None = None
    python: str = ""
    is_driver: bool = False
    source: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    notes: tuple[str, ...] = ()
    steps: Mapping[str, float] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the node is prepared."""
        return self.state == "ok"

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the marker of a JSON object; keys of a later release are left out.

        Raises:
            TypeError, ValueError, AttributeError: It is no marker.
        """
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        if known.get("state") not in STATES:
            raise ValueError(f"state must be one of {list(STATES)}: got {known.get('state')!r}")
        known["overrides"] = tuple(Override(**one) for one in known.get("overrides", ()))
        known["notes"] = tuple(known.get("notes", ()))
        return cls(**known)

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_marker(path: str | Path = MARKER_PATH) -> Marker | None:
    """Return what the init script says that it did to this node.

    Args:
        path: The file; another one in tests.

    Returns:
        None where there is no marker: the script never ran here, or could write nothing. A file
        that cannot be read is a marker of state "failed" whose reason says so.
    """
    file = Path(path)
    try:
        return Marker.of(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except OSError as err:
        why = err.strerror or type(err).__name__
    except (ValueError, TypeError, AttributeError):
        why = "it is no marker"
    return Marker(
        state="failed", reason=f"{file} must be readable: {why}; restart the cluster to write it"
    )
