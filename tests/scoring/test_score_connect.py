"""The tests that `connect` marks, on Spark Connect, as on serverless and standard clusters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

TESTS = Path(__file__).parents[1]
FOLDERS = (TESTS / "scoring", TESTS / "monitoring")


def test_the_tests_marked_connect_pass_on_spark_connect():
    """In another process: a process has one kind of session."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "--dbx-aml-connect", "-m", "connect", "-q"]
    finished = subprocess.run(
        [*command, "-p", "no:cacheprovider", *map(str, FOLDERS)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-8000:]
    assert " passed" in finished.stdout
    assert "skipped" not in finished.stdout
