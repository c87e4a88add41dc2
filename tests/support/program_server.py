"""Run each program in a fork of one process that has imported the libraries of all programs.

So a program starts in a tenth of a second; the imports would take it three seconds.
"""

import gc
import json
import os
import signal
import socket
import sys


def wait_for_program(listener: int) -> list[str]:
    """Return the command line of each call by `program_client.py`, in a new process.

    The process has the folder, the variables and the standard streams of the caller.

    Args:
        listener: File descriptor of a socket that listens.
    """
    gc.freeze()  # else each fork deletes all objects of this process at its end, in 0.6 s
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the forks
    with socket.socket(fileno=listener) as calls:
        while True:
            connection, _ = calls.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(connection, len(b"streams"), 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with connection.makefile() as lines:
        folder, environment, command_line = json.loads(lines.readline())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder  # as `python -m`
    program = os.fork()
    if program == 0:
        connection.close()
        return list(command_line)
    _, status = os.waitpid(program, 0)
    _stop_spark()
    connection.sendall(str(os.waitstatus_to_exitcode(status) & 0xFF).encode())
    os._exit(0)


def _stop_spark() -> None:
    """Stop the Spark that a program leaves running in a Java process that is not its own."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return
    from pyspark.java_gateway import launch_gateway

    sessions = launch_gateway().jvm.org.apache.spark.sql.classic.SparkSession
    session = sessions.getDefaultSession()
    if session.isDefined():
        session.get().sparkContext().stop()
