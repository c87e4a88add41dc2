"""Start a process of `job.py`, wait for its lines, resume its jobs, and kill all its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import psutil

_TIMEOUT_S = 400.0


class JobProcess:
    """A process of scoring jobs; it starts a new session, so that a kill reaches all children.

    Args:
        root: Folder of its local Spark; also receives its standard error.
        jobs: Arguments of `score_table` by the job's name.
        options: Further keys of the plan that `job.py` describes.
    """

    def __init__(self, root: Path, jobs: dict[str, dict[str, Any]], **options: Any) -> None:
        temporary = root / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._errors = root / f"stderr-{time.time_ns()}.txt"
        self._lines: list[str] = []
        self._start = time.monotonic()
        self._line_read = Condition()
        plan = json.dumps({"root": str(root), "jobs": jobs, **options})
        with self._errors.open("w") as errors:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "tests.support.job", plan],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    # Executors of a local-cluster have another current folder than the driver.
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "TMPDIR": str(temporary),
                    "SPARK_LOCAL_DIRS": str(temporary),
                    # Without it, executors of a local-cluster work in the folder of pyspark.
                    "SPARK_TESTING": "1",
                },
                start_new_session=True,
            )
        self._is_closed = False
        self._reader = Thread(target=self._read_lines, daemon=True)
        self._reader.start()

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read_lines(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            with self._line_read:
                self._lines.append(line.rstrip("\n"))
                self._line_read.notify_all()
        with self._line_read:
            self._is_closed = True
            self._line_read.notify_all()

    def wait_for(self, *prefix: str) -> str:
        """Wait for the first line that starts with these words; return the line's other words."""
        start = " ".join(prefix)

        def matching_lines() -> list[str]:
            return [line for line in self._lines if f"{line} ".startswith(f"{start} ")]

        with self._line_read:
            self._line_read.wait_for(lambda: matching_lines() or self._is_closed, _TIMEOUT_S)
            assert matching_lines(), (start, self.output())
            return matching_lines()[0][len(start) + 1 :]

    @property
    def seconds(self) -> float:
        """Seconds since the start of the process."""
        return time.monotonic() - self._start

    def resume(self, name: str) -> None:
        """Let a job that waits or stops go on."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{name}\n")
        self._program.stdin.flush()

    def wait_for_exit(self) -> int:
        """Wait until the process has ended by itself; return its exit code."""
        code = self._program.wait(_TIMEOUT_S)
        self._reader.join(_TIMEOUT_S)
        self.kill()
        return code

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results of the finished jobs, by name."""
        return {name: json.loads(result) for name, result in self._reported("done")}

    def failures(self) -> dict[str, str]:
        """Return the error lines of the failed jobs, by name."""
        return dict(self._reported("failed"))

    def _reported(self, event: str) -> list[list[str]]:
        with self._line_read:
            return [line.split(" ", 2)[1:] for line in self._lines if line.startswith(f"{event} ")]

    def output(self) -> str:
        """Return all lines and the end of standard error, for the message of a failed test."""
        return "\n".join([*self._lines, self._errors.read_text()[-5000:]])

    def kill(self) -> None:
        """SIGKILL the driver, Java and Python's workers, and wait until all have ended."""
        deadline = time.monotonic() + 30
        while members := _session_members(self._program.pid):
            for pid in members:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < deadline, members
            self._program.poll()
        self._program.wait()
        self._reader.join(_TIMEOUT_S)
        for stream in (self._program.stdin, self._program.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def _session_members(session: int) -> list[int]:
    """Return the processes of a session; each has its own group, so killpg cannot reach all."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members
