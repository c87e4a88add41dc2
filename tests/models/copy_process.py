"""A process that copies a version and may kill itself at one of its requests.

It reads a JSON object from each line of stdin: the arguments of `copy_model_version`, and the
number of the request at which the process is killed (0 for none), before it is sent or after its
answer. Each line runs in a fork of the process, so the imports happen once. The process writes the
exit code of the fork to stdout.
"""

import json
import os
import signal
import sys
from itertools import count
from typing import Any

import azure.storage.blob
import databricks.sdk
import mlflow.pyfunc
import requests
from requests.adapters import HTTPAdapter

import dbx_aml.models.copy
import dbx_aml.tracking.azureml.registry_store
from dbx_aml.link.connected_link import set_connected_link
from dbx_aml.link.link import Link

__all__ = ["azure", "databricks", "dbx_aml", "mlflow", "requests"]


def kill_at(number: int, *, is_after: bool) -> None:
    """Kill this process at its request of a number."""
    send = HTTPAdapter.send
    numbers = count(1)

    def send_or_kill(*args: Any, **options: Any) -> Any:
        is_last = next(numbers) == number
        if is_last and not is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        response = send(*args, **options)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    HTTPAdapter.send = send_or_kill  # type: ignore[method-assign]


def main() -> None:
    """Run one fork for each line."""
    for line in sys.stdin:
        arguments = json.loads(line)
        process_id = os.fork()
        if process_id == 0:
            kill_at(arguments.pop("kill_at"), is_after=arguments.pop("is_after"))
            set_connected_link(Link.load())
            dbx_aml.models.copy.copy_model_version(**arguments, with_aliases=True)
            os._exit(0)
        _, status = os.waitpid(process_id, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
