"""Start a stand-in in the foreground and say how to use it; Ctrl-C ends it."""

import argparse
import json
import shlex
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.azureml.server import Server
from tests.support.azureml.service_process import IDENTITIES, AzureMl
from tests.support.azureml.workspace import Workspace


def main() -> None:
    """Read the arguments, start, wait for the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for database and logs; a temporary one")
    parser.add_argument("--workspace", help="fields of the workspace, JSON")
    parser.add_argument("--identity", choices=IDENTITIES, default="service-principal")
    # For `azureml_service`: connection details as JSON on stdout; the end of stdin ends it.
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    workspace = Workspace(**json.loads(options.workspace or "{}"))
    with tempfile.TemporaryDirectory(prefix="azureml-") as temporary:
        server = Server(options.folder or Path(temporary), workspace)
        details = server.connection_details()
        if options.child:
            sys.stdout.write(json.dumps(details) + "\n")
            sys.stdout.flush()
            sys.stdin.read()
            return
        sys.stdout.write(_usage(AzureMl(details), options.identity))
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


def _usage(azureml: AzureMl, identity: str) -> str:
    variables = {"MLFLOW_TRACKING_URI": azureml.tracking_uri, **azureml.environment(identity)}
    exports = [f"export {name}={shlex.quote(text)}" for name, text in variables.items()]
    admin = f"{azureml.proxy}/stand-in"
    return "\n".join(
        [
            "# A stand-in of Azure ML is running; in another terminal:",
            *exports,
            "# python -c 'import mlflow; mlflow.log_metric(\"m\", 1)'",
            "# What clients asked, a fault, and the end of all faults:",
            f"# curl {admin}/requests",
            f"# curl {admin}/faults -d '" + '{"kind": "status", "status": 503, "for_s": 60}\'',
            f"# curl {admin}/reset -d ''",
            "# Enter Ctrl-C here to end it.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
