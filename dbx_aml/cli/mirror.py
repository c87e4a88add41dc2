"""`dbx-aml mirror`: bring runs up to date in the other service, count them, compare them."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from dbx_aml._common.errors import DbxAmlError, MirrorError
from dbx_aml._common.text import one_line, plural
from dbx_aml.cli.options import add_options, config_option, json_option, load_link
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, linked_text, print_json, print_line, print_table

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dbx_aml.tracking.mirror.mirror_run import MirrorResult
    from dbx_aml.tracking.mirror.mirror_runs import Progress
    from dbx_aml.tracking.mirror.run_states import RunStates
    from dbx_aml.tracking.mirror.server import MlflowServer

_WATCH_INTERVAL_S = 30.0
_MAX_ADVISED_RUNS = 3
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
# A bare number is no time: `datetime.fromisoformat` takes eight digits for a date.
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}.*)?")


def _parse_since(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Return ms since 1970 of a date, a time, or a duration before now."""
    if value is None:
        return None
    try:
        if duration := _DURATION.fullmatch(value):
            count, unit = duration.groups()
            start = datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(count)})
        elif _TIME.fullmatch(value):
            start = datetime.fromisoformat(value)
        else:
            raise ValueError
    except (ValueError, OverflowError) as err:
        text = (
            "must be a date (2026-11-24), a time (2026-11-24T08:00 in UTC, or "
            f"2026-11-24T08:00+01:00), or a duration before now (30m, 6h, 2d): got {value!r}"
        )
        raise click.BadParameter(text, ctx, option) from err
    return int((start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp() * 1000)


_experiment_option = click.option(
    "--experiment", "experiments", multiple=True, help="Path or name.  [default: all experiments]"
)
_run_options = add_options(
    _experiment_option,
    click.option("--run-id", "run_ids", multiple=True, help="Only this run of the source."),
    click.option(
        "--since",
        callback=_parse_since,
        help="Only runs started since a date, a time (UTC without a zone), or 30m, 6h, 2d ago.",
    ),
)
_server_options = add_options(
    click.option(
        "--source-tracking-uri", help="Server to read from.  [default: the service that tracks]"
    ),
    click.option(
        "--destination-tracking-uri", help="Server to write to.  [default: the other service]"
    ),
    config_option,
    json_option,
)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the error of a search, which is MLflow's own, into one that the command shows."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as err:
        raise MirrorError(
            f"both services must answer: got {one_line(err, 300)}; unfinished runs stay pending"
        ) from err


@click.group(invoke_without_command=True)
@_run_options
@click.option(
    "--include-unmarked",
    is_flag=True,
    help="Also runs that were never marked; compare all files, also of runs that are done.",
)
@click.option("--dry-run", is_flag=True, help="Show the runs; write nothing.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=_WATCH_INTERVAL_S,
    type=click.FloatRange(min=1),
    metavar="[SECONDS]",
    help="Repeat until stopped, by default every 30 seconds.",
)
@_server_options
@click.pass_context
def mirror(
    ctx: click.Context,
    /,
    experiments: tuple[str, ...],
    run_ids: tuple[str, ...],
    since: int | None,
    include_unmarked: bool,
    dry_run: bool,
    watch: float | None,
    as_json: bool,
    **server_options: str | None,
) -> None:
    """Bring runs up to date in the other service.

    The command finds changes by searches alone. A search does not show files: --include-unmarked
    and --run-id also find a file that was logged after its run was mirrored. The command may be
    stopped and repeated at any time: it writes only data that is missing.
    """
    if ctx.invoked_subcommand:
        return
    if watch and dry_run:
        raise click.UsageError("Give one of --watch and --dry-run.")
    while True:
        try:
            source, destination = _connect_servers(**server_options)
            with _one_line_errors():
                runs, states = _find_runs(
                    source,
                    destination,
                    experiments=experiments,
                    run_ids=run_ids,
                    since=since,
                    include_unmarked=include_unmarked,
                )
                if dry_run:
                    _print_plan(source, destination, runs, states, as_json=as_json)
                else:
                    is_full = include_unmarked or bool(run_ids)
                    _mirror_once(
                        source, destination, runs, states, is_full=is_full, as_json=as_json
                    )
        except DbxAmlError as err:
            if not watch:
                raise
            print_line(f"dbx-aml: {err}", is_error=True)
        if not watch:
            return
        time.sleep(watch)


@mirror.command()
@add_options(_experiment_option)
@_server_options
def status(experiments: tuple[str, ...], as_json: bool, **server_options: str | None) -> None:
    """Count the pending, done and failed runs of each experiment."""
    from dbx_aml.tracking.mirror.source_runs import find_experiment_ids
    from dbx_aml.tracking.mirror.status import count_runs

    source, destination = _connect_servers(**server_options)
    with _one_line_errors():
        counts = list(count_runs(source, destination, find_experiment_ids(source, experiments)))
    if as_json:
        print_json([asdict(row) for row in counts])
        return
    if not counts:
        print_line(f"no run of {source.display_name} is marked to be mirrored")
        return
    columns = (
        Column("experiment"),
        Column("pending", is_number=True),
        Column("oldest", is_number=True),
        Column("done", is_number=True),
        Column("failed", is_number=True),
        Column("unmarked", is_number=True),
        Column("reason", is_prose=True),
    )
    rows = [
        (
            linked_text(row.experiment, row.url),
            row.pending,
            _format_age(row.oldest_pending_s),
            row.done,
            row.failed,
            row.unmarked,
            "\n".join(row.reasons),
        )
        for row in counts
    ]
    print_table(columns, rows, title=f"{source.display_name} → {destination.display_name}")


@mirror.command()
@_run_options
@click.option("--include-pending", is_flag=True, help="Also runs that are not done.")
@_server_options
def verify(
    experiments: tuple[str, ...],
    run_ids: tuple[str, ...],
    since: int | None,
    include_pending: bool,
    as_json: bool,
    **server_options: str | None,
) -> None:
    """Compare done runs value by value; exit 1 if any differs."""
    from dbx_aml.tracking.mirror import tags
    from dbx_aml.tracking.mirror.compare import compare_models_without_run, compare_runs

    source, destination = _connect_servers(**server_options)
    with _one_line_errors():
        found_runs, states = _find_runs(
            source,
            destination,
            experiments=experiments,
            run_ids=run_ids,
            since=since,
            include_unmarked=include_pending,
        )
        # Of a deleted run nothing is mirrored any more.
        runs = [
            run
            for run in found_runs
            if run_ids
            or tags.is_done(run)
            or (include_pending and run.info.lifecycle_stage == "active")
        ]
        differences = list(compare_runs(source, destination, runs))
        if states:
            differences += compare_models_without_run(source, destination, states.experiment_ids)
    if as_json:
        rows = [asdict(difference) for difference in differences]
        print_json({"runs": len(runs), "differences": rows})
    else:
        print_line(f"{plural(len(runs), 'run')} compared, {plural(len(differences), 'difference')}")
        if differences:
            names = ("run", "kind", "name", source.display_name, destination.display_name)
            columns = [Column(name, is_prose=position > 2) for position, name in enumerate(names)]
            pages = {run.info.run_id: source.run_url(run) for run in runs}
            cells = [
                (linked_text(row.run_id, pages.get(row.run_id)), *tuple(asdict(row).values())[1:])
                for row in differences
            ]
            print_table(columns, cells)
    if differences:
        different_ids = sorted({difference.run_id for difference in differences})
        raise MirrorError(
            f"both sides must be equal: got differences in {len(different_ids)} of "
            f"{plural(len(runs), 'run')}; "
            f"mirror them with 'dbx-aml mirror {_advice(different_ids)}'"
        )


def _advice(run_ids: list[str]) -> str:
    """Return the options that mirror some runs and compare each of their files."""
    if len(run_ids) > _MAX_ADVISED_RUNS or any(map(_is_logged_model_id, run_ids)):
        return "--include-unmarked"
    return " ".join(f"--run-id {run_id}" for run_id in run_ids)


def _connect_servers(
    config: str | None, source_tracking_uri: str | None, destination_tracking_uri: str | None
) -> tuple[MlflowServer, MlflowServer]:
    """Return source and destination after both have answered."""
    from dbx_aml.link.connected_link import set_connected_link
    from dbx_aml.tracking.mirror.server import check_server, servers_of_link

    link = load_link(config)
    # The store of Azure ML finds its credential by the connected link.
    set_connected_link(link)
    # Many runs at once share MLflow's connections.
    os.environ.setdefault("MLFLOW_HTTP_POOL_MAXSIZE", "32")
    os.environ["DBX_AML_RETRY_TIMEOUT_S"] = f"{link.retry_timeout_s:g}"
    if link.aml_workspace is not None:
        os.environ.setdefault("AZUREML_CURRENT_CLOUD", link.aml_workspace.cloud)
    servers = servers_of_link(
        link,
        source_tracking_uri=source_tracking_uri,
        destination_tracking_uri=destination_tracking_uri,
    )
    for server in servers:
        check_server(server, link)
    return servers


def _find_runs(
    source: MlflowServer,
    destination: MlflowServer,
    *,
    experiments: tuple[str, ...],
    run_ids: tuple[str, ...],
    since: int | None,
    include_unmarked: bool,
) -> tuple[Iterator[Run], RunStates | None]:
    """Return the runs, and their states unless the runs were named."""
    from dbx_aml.tracking.mirror.run_states import RunStates
    from dbx_aml.tracking.mirror.source_runs import find_experiment_ids, find_runs, get_runs

    if run_ids:
        return iter(get_runs(source, run_ids)), None
    ids = find_experiment_ids(source, experiments)
    runs = find_runs(source, ids, since=since, include_unmarked=include_unmarked)
    return runs, RunStates(source, destination, ids)


def _mirror_once(
    source: MlflowServer,
    destination: MlflowServer,
    runs: Iterator[Run],
    states: RunStates | None,
    *,
    is_full: bool,
    as_json: bool,
) -> None:
    """Mirror, with a report of the progress; `is_full` compares every run and every file."""
    from dbx_aml.tracking.mirror.mirror_runs import mirror_runs

    results: list[MirrorResult] = []
    stopped_by: MirrorError | None = None
    with show_progress("Mirroring", "runs") as report_step:

        def report(progress: Progress) -> None:
            from rich.filesize import decimal

            amounts = f"{progress.metric_points:,} points, {decimal(progress.artifact_bytes)}"
            report_step("Mirroring", progress.finished_runs, progress.runs, amounts)

        try:
            for result in mirror_runs(
                source, destination, runs, states=states, is_full=is_full, report=report
            ):
                results.append(result)
        except MirrorError as err:
            stopped_by = err
    _print_results(source, destination, results, as_json=as_json)
    if stopped_by:
        raise stopped_by
    failed = [result for result in results if result.error is not None]
    if failed:
        raise MirrorError(
            f"every run must be mirrored: {len(failed)} of {len(results)} were not; the first one, "
            f"{failed[0].run_id}: {failed[0].reason}"
        )


def _print_plan(
    source: MlflowServer,
    destination: MlflowServer,
    runs: Iterator[Run],
    states: RunStates | None,
    *,
    as_json: bool,
) -> None:
    from dbx_aml.tracking.mirror.mirror_runs import unchanged_result

    rows = [
        {
            "run_id": run.info.run_id,
            "name": run.info.run_name or "",
            "status": run.info.status,
            "params": len(run.data.params),
            "metrics": len(run.data.metrics),
            "url": source.run_url(run),
        }
        for run in runs
        if states is None or unchanged_result(run, states) is None
    ]
    if as_json:
        print_json({"dry_run": True, "runs": rows})
        return
    if not rows:
        print_line("nothing to mirror")
        return
    columns = (
        Column("run"),
        Column("name"),
        Column("status"),
        Column("params", is_number=True, is_optional=True),
        Column("metrics", is_number=True, is_optional=True),
    )
    names = f"{source.display_name} → {destination.display_name}"
    cells = [
        (linked_text(str(row["run_id"]), row["url"]), *tuple(row.values())[1:-1]) for row in rows
    ]
    print_table(columns, cells, title=f"Dry run, nothing written: {names}")


def _print_results(
    source: MlflowServer, destination: MlflowServer, results: list[MirrorResult], *, as_json: bool
) -> None:
    """Print the result of each run; runs without a change only as a count."""
    counts = Counter(result.status for result in results)
    if as_json:
        rows = [
            {name: value for name, value in vars(result).items() if name != "error"}
            | {"url": _page(source, result)}
            for result in results
        ]
        print_json({"counts": counts, "runs": rows})
        return
    columns = (
        Column("run"),
        Column("name"),
        Column("status"),
        Column("points", is_number=True, is_optional=True),
        Column("bytes", is_number=True, is_optional=True),
        Column("reason", is_prose=True),
    )
    cells = [
        (
            linked_text(result.run_id, _page(source, result)),
            result.name,
            result.status,
            result.metric_points,
            result.artifact_bytes,
            result.reason,
        )
        for result in results
        if result.status != "unchanged"
    ]
    if cells:
        print_table(columns, cells, title=f"{source.display_name} → {destination.display_name}")
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print_line(summary or "nothing to mirror")


def _page(source: MlflowServer, result: MirrorResult) -> str | None:
    """Return the page of a run; None for a logged model without a run."""
    from dbx_aml.models.pages import run_url

    if _is_logged_model_id(result.run_id):
        return None
    return run_url(result.run_id, result.experiment_id, tracking_uri=source.tracking_uri)


def _is_logged_model_id(run_id: str) -> bool:
    """Tell whether the id in a result is that of a logged model without a run."""
    return run_id.startswith("m-")


def _format_age(seconds: float | None) -> str:
    """Return an age for people, for example "3 h"; an empty text for None."""
    if seconds is None:
        return ""
    for unit, unit_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
