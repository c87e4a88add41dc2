"""The process of a stand-in: it prints connection details, and ends with its standard input."""

import json
import sys
from pathlib import Path

from tests.support.azureml.server import Server
from tests.support.azureml.workspace import Workspace


def main() -> None:
    """Start in the folder of the first argument, wait for the end."""
    server = Server(Path(sys.argv[1]), Workspace())
    sys.stdout.write(json.dumps(server.connection_details()) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
