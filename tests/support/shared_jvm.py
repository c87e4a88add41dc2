"""One Java process for several programs that start Spark: from the second one on, it is warm.

PySpark uses the Java process that two variables name, as it does below spark-submit.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dbx_aml.local.java import start_jvm, stop_jvm
from dbx_aml.local.spark import _settings, local_root


class SharedJvm:
    """A Java process for the Spark of one program after the other.

    Args:
        folder: Current folder of the Java process.
        environment: Its variables, also those of Spark's Python workers.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shared_jvm"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        port, secret = self._read_line().split()
        self.variables = {"PYSPARK_GATEWAY_PORT": port, "PYSPARK_GATEWAY_SECRET": secret}

    def stop_spark(self) -> None:
        """Stop the Spark that a program left running at its end."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._read_line()

    def close(self) -> None:
        """End the Java process."""
        self._process.communicate(timeout=60)

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the Java process ended"
        return line


def serve() -> None:
    """Start Java, print how to reach it, and stop its Spark for each line of the input."""
    folder = local_root()
    gateway = start_jvm(_settings(folder, {}, kafka=False), folder / "spark.log")
    print(gateway.java_parameters.port, gateway.java_parameters.auth_token, flush=True)
    for _ in sys.stdin:
        active = gateway.jvm.org.apache.spark.SparkContext.getActive()
        if active.isDefined():
            active.get().stop()
        print("stopped", flush=True)
    stop_jvm(gateway)


if __name__ == "__main__":
    serve()
