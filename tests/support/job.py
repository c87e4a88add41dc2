"""Scoring jobs in a separate process, which tests kill and stop (see `job_process.py`).

    python -m tests.support.job '{"root": "/tmp/r", "jobs": {"night": {"model_uri": ...}}}'

The jobs run at the same time, each in another thread and session: one start of Java, and one kill,
serves all of them. Further keys of the plan: `master`; `waits`, names of the jobs that
wait for a line on stdin before they start; `stops`, the point at which a job waits for such a line.
A line on stdin is the name of a job. Lines on stdout: "up" when Spark has started; for a job "at"
when it stops, "done" with its result or "failed" with its error, and then "over".
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbx_aml import local_spark, score_table
from dbx_aml._common.errors import DbxAmlError
from dbx_aml.local.spark import SHORT_JOB_JAVA_OPTIONS
from dbx_aml.scoring import stream
from dbx_aml.scoring.batch_writer import BatchWriter

BEFORE_QUARANTINE = "before the quarantine"
BEFORE_STREAM_COMMIT = "before the stream's commit"

# Small batches and files give a job many moments at which it can be killed.
SPARK_CONF = {
    "spark.driver.extraJavaOptions": SHORT_JOB_JAVA_OPTIONS,
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100",
    "spark.sql.files.maxRecordsPerFile": "500",
}


class Jobs:
    """The jobs of this process: it reads lines from stdin for them and prints theirs."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._resumed = {name: threading.Semaphore(0) for name in plan["jobs"]}
        self._names_by_output = {job["output_table"]: name for name, job in plan["jobs"].items()}

    def read_lines(self) -> None:
        for line in sys.stdin:
            self._resumed[line.strip()].release()

    def print_line(self, *fields: str) -> None:
        sys.stdout.write(" ".join(fields) + "\n")
        sys.stdout.flush()

    def run(self, name: str, spark: Any) -> bool:
        if name in self._plan.get("waits", ()):
            self._resumed[name].acquire()
        try:
            result = score_table(**self._plan["jobs"][name], spark=spark)
        except DbxAmlError as err:
            self.print_line("failed", name, str(err))
            return False
        else:
            self.print_line("done", name, json.dumps(result.to_dict()))
            return True
        finally:
            self.print_line("over", name)

    def stop(self, stop_name: str, output_table: str) -> None:
        name = self._names_by_output[output_table]
        if self._plan.get("stops", {}).get(name) == stop_name:
            self.print_line("at", name)
            self._resumed[name].acquire()


def add_stops(jobs: Jobs) -> None:
    """Replace two functions of the package by ones at which a job can stop."""
    write_quarantine, write_batch = BatchWriter._save_quarantine, stream.write_batch

    def stop_and_write_quarantine(writer: Any, *args: Any, **kwargs: Any) -> Any:
        jobs.stop(BEFORE_QUARANTINE, writer._output.name)
        return write_quarantine(writer, *args, **kwargs)

    def write_batch_and_stop(bound: Any, *args: Any, **kwargs: Any) -> Any:
        written = write_batch(bound, *args, **kwargs)
        jobs.stop(BEFORE_STREAM_COMMIT, bound.request.output_table.name)
        return written

    BatchWriter._save_quarantine = stop_and_write_quarantine
    stream.write_batch = write_batch_and_stop


def main(plan: dict[str, Any]) -> int:
    jobs = Jobs(plan)
    add_stops(jobs)
    threading.Thread(target=jobs.read_lines, daemon=True).start()
    spark = local_spark(plan["root"], master=plan.get("master", "local[2]"), conf=SPARK_CONF)
    jobs.print_line("up")
    with ThreadPoolExecutor(len(plan["jobs"])) as pool:
        futures = [pool.submit(jobs.run, name, spark.newSession()) for name in plan["jobs"]]
    return 0 if all(future.result() for future in futures) else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
