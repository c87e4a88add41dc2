"""`dbx-aml`: one command, one subcommand a step.

Tables for people on stderr's sibling stdout, `--json` for programs, progress on stderr. Exit 0,
1 (it failed, one line says why) or 2 (wrong usage).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from types import TracebackType
from typing import Any

import click

from dbx_aml._common.errors import DbxAmlError, ServingError
from dbx_aml._common.log import PrintableFormatter
from dbx_aml._common.text import printable
from dbx_aml.cli.batches import batches
from dbx_aml.cli.clean import clean
from dbx_aml.cli.cluster import cluster
from dbx_aml.cli.demo import demo
from dbx_aml.cli.doctor import doctor
from dbx_aml.cli.endpoint import endpoint
from dbx_aml.cli.job import job
from dbx_aml.cli.link import link
from dbx_aml.cli.mirror import mirror
from dbx_aml.cli.models import models
from dbx_aml.cli.monitor import monitor
from dbx_aml.cli.new import new
from dbx_aml.cli.notebook import notebook
from dbx_aml.cli.replay import replay
from dbx_aml.cli.runs import runs
from dbx_aml.cli.score import score
from dbx_aml.cli.tables import print_line
from dbx_aml.cli.workspace import compute, datastore, environment, workspace

__all__ = ["main", "score"]


class _Main(click.Group):
    """A group whose commands end with one line for a `DbxAmlError`, not with a traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Return where all is well, for callers other than a shell.

        A Python wheel task of Databricks calls this and takes any SystemExit for a failure, even
        with status 0.

        Source:
            MicrosoftDocs/azure-docs issue 116964.
        """
        try:
            return super().main(*args, **extra)
        except SystemExit as err:
            if err.code:
                raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as err:
            # The message may repeat an argument, for example a URI with a password.
            err.message = printable(err.message)  # type: ignore[misc]
            raise
        except DbxAmlError as err:
            if isinstance(err, ServingError) and err.log:
                print_line(err.log, is_error=True)
            print_line(f"dbx-aml: {err}", is_error=True)
            ctx.exit(2 if isinstance(err, ValueError) else 1)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dbx-aml", prog_name="dbx-aml")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, on stderr.")
def main(verbose: bool) -> None:
    """Azure Databricks and Azure Machine Learning as one MLflow platform."""
    sys.excepthook = _print_traceback
    _set_up_logging(verbose)


for _command in (
    batches,
    clean,
    cluster,
    compute,
    datastore,
    demo,
    doctor,
    endpoint,
    environment,
    job,
    link,
    mirror,
    models,
    monitor,
    new,
    notebook,
    replay,
    runs,
    score,
    workspace,
):
    main.add_command(_command)


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print the traceback of an unexpected error, which may hold the text of any library."""
    print_line("".join(traceback.format_exception(kind, error, trace)).rstrip(), is_error=True)


class LogHandler(logging.Handler):
    """Prints each record on a line above the progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # While a progress line is shown, this is another stream.
            print_line(self.format(record), file=sys.stderr)
        except (OSError, ValueError):
            # The reader of the stream has gone.
            self.handleError(record)


def _set_up_logging(verbose: bool) -> None:
    handler = LogHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    if verbose:
        return
    # The command shows its progress itself.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # These libraries repeat the warnings and the error that the command prints once. MLflow sets
    # its level from this variable when it is imported.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    for name in (
        "azure",
        "databricks.sdk",
        "SQLQueryContextLogger",
        "DataFrameQueryContextLogger",
        "py4j",
        "alembic",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
