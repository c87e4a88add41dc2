"""Start a stand-in in the foreground and say how to use it; Ctrl-C ends it."""

import argparse
import shlex
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.databricks.boot import leaves_marker
from tests.support.databricks.stand_in import Databricks, databricks_service


def main() -> None:
    """Read the arguments, start, wait for the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where it listens; any that is free")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="databricks-") as folder,
        databricks_service(Path(folder), options.port) as databricks,
    ):
        databricks.boot.run_script = leaves_marker()
        databricks.volumes.add("main.default.dbx_aml")
        databricks.clusters.add("team")
        databricks.clusters.add("shared", data_security_mode="USER_ISOLATION")
        databricks.clusters.add("asleep", state="TERMINATED")
        sys.stdout.write(_usage_text(databricks))
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


def _usage_text(databricks: Databricks) -> str:
    exports = [
        f"export {name}={shlex.quote(text)}" for name, text in databricks.environment().items()
    ]
    return "\n".join(
        [
            "# A stand-in of Databricks is running; in another terminal:",
            *exports,
            "# It has the volume main.default.dbx_aml, and the clusters team (dedicated, running),",
            "# shared (standard access mode, running) and asleep (terminated).",
            "# dbx-aml cluster status team",
            "# Enter Ctrl-C here to end it.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
