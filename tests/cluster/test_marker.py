"""The marker is read back as it was written, and a broken one says so instead of raising."""

import json
from pathlib import Path

import pytest

from dbx_aml.cluster.node.marker import NodeMarker, read_marker

MARKER = NodeMarker(
    status="ok",
    version="0.1.0",
    time="2026-11-24T22:05:09+00:00",
    runtime="19.0",
    python="3.12.3",
    is_driver=True,
    packages_from="wheelhouse /Volumes/main/ml/wheelhouse",
    installed={"azureml-mlflow": "1.62.0.post6"},
    messages=("größer",),
    steps={"fetch": 0.4},
    variables={"MLFLOW_TRACKING_URI": "databricks"},
    fingerprint="5f70",
)


def test_a_marker_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "marker.json"
    file.write_text(MARKER.to_json(), encoding="utf-8")
    assert read_marker(file) == MARKER
    assert MARKER.is_ok


def test_a_node_without_a_marker_has_none(tmp_path: Path) -> None:
    assert read_marker(tmp_path / "marker.json") is None


def test_keys_of_a_later_release_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "marker.json"
    file.write_text(json.dumps({"status": "failed", "reason": "why", "colour": "red"}))
    assert read_marker(file) == NodeMarker(status="failed", reason="why")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"status": "fine"}', '{"installed": 3}'])
def test_a_broken_marker_is_a_failure_that_says_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "marker.json"
    file.write_text(text)
    assert read_marker(file) == NodeMarker(
        status="failed",
        reason=f"{file} must be readable: it is no marker; restart the cluster to write it again",
    )
