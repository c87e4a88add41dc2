"""The same promises on Spark Connect: serverless and standard clusters are Connect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The whole of that module: minutes, and longer on a busy machine.
pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(2400)]
SAME = Path(__file__).with_name("test_score_table.py")


def test_every_promise_holds_on_spark_connect_too():
    """In a process of its own: one process has one kind of session."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--connect", "-q", "-p", "no:cacheprovider", str(SAME)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
