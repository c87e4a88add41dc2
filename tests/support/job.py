"""Scoring jobs in a process of its own, which tests kill, race and starve (see `job_process.py`).

    python -m tests.support.job '{"root": "/tmp/r", "jobs": {"night": {"model_uri": ...}}}'

The jobs run at the same time, each in a thread with a session of its own, so that one start of
Java, and one kill, serves them all. Further keys: `master`; `waits`, jobs that start when told;
`stops`, jobs that stop at a point of the protocol until told to go on. Telling is a line with the
job's name on stdin. Lines on stdout: "up" when Spark is, then for a job "at", "done" with its
result or "failed" with the line that the command would show, and in any case "over".
"""

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbx_aml import local_spark, score_table
from dbx_aml._common.errors import DbxAmlError
from dbx_aml.scoring import batch, stream

# Short jobs: the second compiler of the JVM would cost more than it brings. Small batches and
# files, so that a job has many moments to die at.
CONF = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
    "spark.sql.files.maxRecordsPerFile": "500",
}


class Jobs:
    """The jobs of this process, and the one way to hear of them and to steer them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._told = {name: threading.Semaphore(0) for name in plan["jobs"]}
        self._named = {job["output_table"]: name for name, job in plan["jobs"].items()}

    def listen(self) -> None:
        for line in sys.stdin:
            self._told[line.strip()].release()

    def say(self, *words: str) -> None:
        sys.stdout.write(" ".join(words) + "\n")
        sys.stdout.flush()

    def run(self, name: str, spark: Any) -> bool:
        if name in self._plan.get("waits", ()):
            self._told[name].acquire()
        try:
            result = score_table(**self._plan["jobs"][name], spark=spark)
        except DbxAmlError as err:
            self.say("failed", name, str(err))
            return False
        else:
            self.say("done", name, json.dumps(result.to_dict()))
            return True
        finally:
            self.say("over", name)

    def stop(self, point: str, output_table: str) -> None:
        name = self._named[output_table]
        if self._plan.get("stops", {}).get(name) == point:
            self.say("at", name)
            self._told[name].acquire()


def put_points(jobs: Jobs) -> None:
    """Make the protocol pass the points at which a job can be stopped."""
    write_quarantine, write_batch = batch._write_quarantine, stream.write_batch

    def before(bound: Any, *args: Any) -> Any:
        jobs.stop("before the quarantine", bound.request.output_table.name)
        return write_quarantine(bound, *args)

    def after(bound: Any, *args: Any) -> Any:
        written = write_batch(bound, *args)
        jobs.stop("before the stream's commit", bound.request.output_table.name)
        return written

    changed: dict[str, tuple[Any, Callable[..., Any]]] = {
        "_write_quarantine": (batch, before),
        "write_batch": (stream, after),
    }
    for name, (module, function) in changed.items():
        setattr(module, name, function)


def main(plan: dict[str, Any]) -> int:
    jobs = Jobs(plan)
    put_points(jobs)
    threading.Thread(target=jobs.listen, daemon=True).start()
    spark = local_spark(plan["root"], master=plan.get("master", "local[2]"), conf=CONF)
    jobs.say("up")
    with ThreadPoolExecutor(len(plan["jobs"])) as pool:
        started = [pool.submit(jobs.run, name, spark.newSession()) for name in plan["jobs"]]
    return 0 if all(future.result() for future in started) else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
