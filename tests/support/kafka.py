"""A real Kafka broker in KRaft mode on a loopback port, from its Maven jars."""

import base64
import contextlib
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from dbx_aml.local.jars import jars_of, spark_home
from dbx_aml.local.java import find_java

# The version whose jars Spark's own lack least.
_BROKER = "org.apache.kafka:kafka_2.13:4.1.1"
_START_TIMEOUT_S = 120.0


class Broker:
    """One broker and controller; it keeps its messages when it is stopped and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._port, controller_port = _free_port(), _free_port()
        self._settings = folder / "server.properties"
        self._log_file = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._settings.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self._port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/logs
num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
        )
        self._run("kafka.tools.StorageTool", "format", f"-t={_cluster_id()}", "-c", self._settings)

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", self._settings), stdout=log, stderr=log
            )
        end_time = time.monotonic() + _START_TIMEOUT_S
        while not _is_open(self._port):
            assert self._process.poll() is None, self._log_file.read_text()[-3000:]
            assert time.monotonic() < end_time, self._log_file.read_text()[-3000:]
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def _run(self, main_class: str, *arguments: object) -> None:
        finished = subprocess.run(
            self._command(main_class, *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=_START_TIMEOUT_S,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr

    def _command(self, main_class: str, *arguments: object) -> list[str]:
        jars = jars_of(_BROKER)
        # Spark has another jar of this name, so it is not in the list.
        jars += jars[0].parent.glob("com.yammer.metrics_metrics-core-*.jar")
        own = {re.sub(r"-\d.*", "", jar.name.split("_", 1)[-1]) for jar in jars}
        # Kafka needs some jars that Spark has, too: its logging, Scala and Jackson.
        jars += [
            jar
            for jar in (spark_home() / "jars").glob("*.jar")
            if re.sub(r"-\d.*", "", jar.name) not in own
        ]
        classpath = ":".join(map(str, jars))
        java = find_java() / "bin" / "java"
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        return [str(java), *options, "-cp", classpath, main_class, *map(str, arguments)]


@contextlib.contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
