"""The parent's side of `job.py`: start it, hear of it, steer it, kill everything of it."""

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

_WAIT_S = 400.0


class JobProcess:
    """A process of scoring jobs, in a session of its own so that none of it outlives a kill.

    Args:
        root: Folder of its local Spark; what it says on stderr is there too.
        jobs: Arguments of `score_table` by the job's name.
        more: Further keys of the plan, see `job.py`.
    """

    def __init__(self, root: Path, jobs: dict[str, dict[str, Any]], **more: Any) -> None:
        temporary = root / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._errors = root / f"stderr-{time.time_ns()}.txt"
        self._lines: list[str] = []
        self._started = time.monotonic()
        self._heard = Condition()
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.job",
                    json.dumps({"root": str(root), "jobs": jobs, **more}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    # Executors of a local-cluster run in folders of their own.
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "TMPDIR": str(temporary),
                    "SPARK_LOCAL_DIRS": str(temporary),
                    # Else executors of a local-cluster work in the folder of pyspark.
                    "SPARK_TESTING": "1",
                },
                start_new_session=True,
            )
        self._ended = False
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self._lines.append(line.rstrip("\n"))
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def wait_for(self, *words: str) -> str:
        """Return the rest of the first line that starts with these words, once it is said."""
        start = " ".join(words)

        def found() -> list[str]:
            return [line for line in self._lines if f"{line} ".startswith(f"{start} ")]

        with self._heard:
            self._heard.wait_for(lambda: found() or self._ended, timeout=_WAIT_S)
            assert found(), (start, self.story())
            return found()[0][len(start) + 1 :]

    @property
    def seconds(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def tell(self, name: str) -> None:
        """Let a job start, or go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()

    def end(self) -> int:
        """Return the exit code, once it has ended by itself."""
        code = self._process.wait(_WAIT_S)
        self._reader.join(_WAIT_S)
        self.kill()
        return code

    def results(self) -> dict[str, dict[str, Any]]:
        """Return what the jobs that are done so far have returned."""
        return {name: json.loads(rest) for name, rest in self._said("done")}

    def failures(self) -> dict[str, str]:
        """Return the lines with which jobs failed so far."""
        return dict(self._said("failed"))

    def _said(self, kind: str) -> list[list[str]]:
        with self._heard:
            return [line.split(" ", 2)[1:] for line in self._lines if line.startswith(f"{kind} ")]

    def story(self) -> str:
        """Return everything it said, for the message of a test that fails."""
        return "\n".join([*self._lines, self._errors.read_text()[-5000:]])

    def kill(self) -> None:
        """SIGKILL the driver, Java and Python's workers, and wait until none is left."""
        deadline = time.monotonic() + 30
        while members := _members(self._process.pid):
            for pid in members:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < deadline, members
            self._process.poll()
        self._process.wait()
        self._reader.join(_WAIT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def _members(session: int) -> list[int]:
    """Return the processes of a session; each has a group of its own, so none can be asked for."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
