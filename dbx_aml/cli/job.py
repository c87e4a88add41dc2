"""`dbx-aml job`: a training script on a compute of Azure ML."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import ArgumentError, ServingError
from dbx_aml._common.text import plural
from dbx_aml.cli.options import config_option, json_option, load_link, max_results_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import (
    Column,
    linked_text,
    print_fields,
    print_json,
    print_line,
    print_table,
    shown_fields,
)

if TYPE_CHECKING:
    from dbx_aml.serving.jobs import Job


@click.group()
def job() -> None:
    """Run a training script in Azure ML."""


@job.command()
@click.argument("script", required=False, type=click.Path(path_type=Path))
@click.option("--compute", help="Compute, for example 'cpu-cluster'.")
@click.option("--experiment", help="Name, or path in Databricks.  [default: the link's]")
@click.option(
    "-p",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the script; may be repeated.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to upload.  [default: the script's]",
)
@click.option("--environment", help="azureml:NAME:VERSION.  [default: made from requirements.txt]")
@click.option("--name", help="Name of the job.  [default: a new one]")
@click.option("--timeout-s", type=click.FloatRange(1), help="Longest time of the job.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Command job in Azure ML's YAML.",
)
@click.option("--no-wait", is_flag=True, help="End after the submission.")
@config_option
@json_option
def submit(
    script: Path | None,
    parameters: tuple[str, ...],
    file: Path | None,
    no_wait: bool,
    config: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit a script, and follow its log to the end.

    The folder of the script is uploaded, with this package in it. For example:

    dbx-aml job submit train.py --compute cpu-cluster -p alpha=0.5

    The exit code is 0 if the job completes, and 1 if it fails or is canceled. Ctrl-C ends the
    command, not the job.
    """
    from dbx_aml.serving.job_file import read_job_file
    from dbx_aml.serving.submit import submit_job

    if file and script:
        raise ArgumentError(
            f"script must be left out with --file, whose command names it: got '{script}'; leave "
            "one of the two out"
        )
    arguments: dict[str, Any] = read_job_file(file) if file else {}
    arguments |= {key: value for key, value in options.items() if value is not None}
    arguments["parameters"] = {
        **arguments.get("parameters", {}),
        **dict(_parse_parameter(text) for text in parameters),
    }
    arguments.setdefault("script", script)
    if arguments["script"] is None:
        raise ArgumentError("script must be given: got none; pass for example train.py, or --file")
    if not arguments.get("compute"):
        raise ArgumentError(
            "compute must be given: got none; pass --compute, and list the computes with "
            "'dbx-aml compute list'"
        )
    with show_progress("Reading the folder") as progress:
        submitted = submit_job(**arguments, link=load_link(config), report=progress)
    if no_wait:
        _print_job(submitted, as_json)
        return
    if not as_json:
        print_line(f"job {submitted.name}")
        print_line(submitted.page)
    _follow(submitted, as_json)


@job.command(name="list")
@max_results_option("jobs")
@config_option
@json_option
def list_jobs(max_results: int, config: str | None, as_json: bool) -> None:
    """List the newest jobs."""
    from dbx_aml.serving.jobs import Job

    with show_progress("Reading the jobs"):
        jobs = Job.load_all(max_results=max_results, link=load_link(config))
    if as_json:
        print_json([shown_fields(item) for item in jobs])
        return
    if not jobs:
        print_line("no jobs; submit one with 'dbx-aml job submit'")
        return
    columns = [
        Column("job"),
        Column("state"),
        Column("experiment"),
        Column("compute", is_optional=True),
        Column("submitted (UTC)", is_optional=True),
    ]
    rows = [
        (
            linked_text(item.name, item.page),
            item.state,
            item.experiment,
            item.compute,
            item.created_at[:19].replace("T", " "),
        )
        for item in jobs
    ]
    print_table(columns, rows)


@job.command()
@click.argument("name")
@config_option
@json_option
def show(name: str, config: str | None, as_json: bool) -> None:
    """Show a job."""
    _print_job(_load_job(name, config), as_json)


@job.command()
@click.argument("name")
@click.option("--follow", is_flag=True, help="Go on until the job ends.")
@config_option
def logs(name: str, follow: bool, config: str | None) -> None:
    """Print the log of a job."""
    current = _load_job(name, config)
    if follow:
        _follow(current, as_json=False)
        return
    with show_progress("Reading the log"):
        text = current.log()
    print_line(text.rstrip() or f"no log yet: the job is {current.state}")


@job.command()
@click.argument("name")
@config_option
def cancel(name: str, config: str | None) -> None:
    """Cancel a job, and wait until it has ended."""
    current = _load_job(name, config)
    with show_progress(f"Canceling {name}"):
        ended = current.cancel()
    print_line(f"job {name} is {ended.state}")


@job.command()
@click.argument("name")
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files.  [default: the job's name]",
)
@config_option
def download(name: str, folder: Path | None, config: str | None) -> None:
    """Download logs and artifacts of a job."""
    current = _load_job(name, config)
    target = folder or Path(name)
    with show_progress("Reading the files") as progress:
        files = current.download(target, lambda file: progress(f"Downloading {file}"))
    print_line(f"{plural(len(files), 'file')} in {target}")


def _follow(current: Job, as_json: bool) -> None:
    """Print the log while the job runs; an end other than "Completed" is an error."""
    with ExitStack() as stack:
        progress = stack.enter_context(show_progress("Waiting for the job"))

        def report(state: str) -> None:
            progress(f"Job is {state}")

        def write(text: str) -> None:
            # The line of the progress would run through the log.
            stack.close()
            print_line(text.removesuffix("\n"), is_error=as_json)

        try:
            ended = current.follow(write, report)
        except KeyboardInterrupt:
            stack.close()
            print_line(
                f"job {current.name} goes on; follow it with 'dbx-aml job logs {current.name} "
                f"--follow', or cancel it with 'dbx-aml job cancel {current.name}'",
                is_error=True,
            )
            raise
    if as_json:
        print_json(shown_fields(ended))
    if not ended.is_completed:
        error = ended.error()
        raise ServingError(
            f"job {ended.name} must complete: it is {ended.state}"
            + (f"; {error.rstrip('.')}" if error else "")
            + f"; read its log with 'dbx-aml job logs {ended.name}'"
        )
    if not as_json:
        print_line(f"job {ended.name} is {ended.state}")


def _load_job(name: str, config: str | None) -> Job:
    from dbx_aml.serving.jobs import Job

    with show_progress("Reading the job"):
        return Job.load(name, link=load_link(config))


def _parse_parameter(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ArgumentError(f"parameter must be NAME=VALUE: got {text!r}; write -p alpha=0.5")
    return name, value


def _print_job(item: Job, as_json: bool) -> None:
    if as_json:
        print_json(shown_fields(item))
        return
    fields = [
        ("job", item.name),
        ("state", item.state),
        ("name", item.display_name),
        ("experiment", item.experiment),
        ("compute", item.compute),
        ("submitted", item.created_at),
        ("command", item.command),
        *((f"inputs.{name}", value) for name, value in item.parameters.items()),
        ("page", item.page),
    ]
    error = item.error() if item.has_ended and not item.is_completed else ""
    print_fields([*fields, *([("error", error)] if error else [])], is_prose=False)
