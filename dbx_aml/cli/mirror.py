"""`dbx-aml mirror`: bring the other service up to date; how far is it, and is it right."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import DbxAmlError, MirrorError
from dbx_aml.cli.mirror_table import format_age, mirror_progress, print_outcomes, print_plan
from dbx_aml.cli.options import add_options, config_option, json_option
from dbx_aml.cli.tables import Column, print_json, print_table

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dbx_aml.tracking.mirror.mirror_run import Outcome
    from dbx_aml.tracking.mirror.server import Side

_EVERY_S = 30.0
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _since(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Return a time as ms since 1970, from a date or from how long ago it was."""
    if value is None:
        return None
    if value[-1:] in _UNITS and value[:-1].isdigit():
        when = datetime.now(UTC) - timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        return int(when.timestamp() * 1000)
    try:
        when = datetime.fromisoformat(value)
    except ValueError as err:
        text = f"must be a time such as 2026-11-24, 2026-11-24T08:00+01:00 or 6h: got {value!r}"
        raise click.BadParameter(text, ctx, option) from err
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


_WHICH = [
    click.option(
        "--experiment", "experiments", multiple=True, help="Its path or name.  [default: all]"
    ),
    click.option("--run-id", "run_ids", multiple=True, help="Only this run of the source."),
    click.option(
        "--since",
        callback=_since,
        help="Only runs started since: a date, a time (UTC without a zone), or 30m, 6h, 2d.",
    ),
]
_SIDES = [
    click.option("--source-tracking-uri", help="[default: by the link: the service that tracks]"),
    click.option("--destination-tracking-uri", help="[default: by the link: the other one]"),
    config_option,
    json_option,
]


@click.group(invoke_without_command=True)
@add_options(*_WHICH)
@click.option(
    "--include-unmarked",
    is_flag=True,
    help="Also runs that were never marked, and runs that are done.",
)
@click.option("--dry-run", is_flag=True, help="Show which runs; write nothing.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=_EVERY_S,
    type=click.FloatRange(min=1),
    metavar="[SECONDS]",
    help="Again and again, by default every 30 seconds.",
)
@add_options(*_SIDES)
@click.pass_context
def mirror(
    ctx: click.Context,
    /,
    include_unmarked: bool,
    dry_run: bool,
    watch: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Bring the runs that are pending up to date in the other service, and prove it.

    Whatever stopped it before, do it again: only what is missing is written, nothing twice.
    """
    if ctx.invoked_subcommand:
        return
    if watch and dry_run:
        raise click.UsageError("Give one of --watch and --dry-run.")
    while True:
        try:
            _once(include_unmarked=include_unmarked, dry_run=dry_run, as_json=as_json, **given)
        except DbxAmlError as err:
            if not watch:
                raise
            click.echo(f"dbx-aml: {err}", err=True)
        if not watch:
            return
        time.sleep(watch)


@mirror.command()
@add_options(*_WHICH[:1])
@add_options(*_SIDES)
def status(experiments: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """How many runs are pending, done or failed, by experiment."""
    from dbx_aml.tracking.mirror import pending_runs as queue
    from dbx_aml.tracking.mirror.status import count

    src, dst = _sides(**given)
    rows = list(count(src, queue.experiment_ids(src, experiments)))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        click.echo(f"no run of {src.workspace} is marked to be mirrored")
        return
    columns = [
        Column("experiment"),
        Column("pending", is_number=True),
        Column("oldest", is_number=True, is_optional=True),
        Column("done", is_number=True),
        Column("failed", is_number=True),
        Column("reason", is_prose=True),
    ]
    table = [
        (
            row.experiment,
            row.pending,
            None if row.oldest_pending_s is None else format_age(row.oldest_pending_s),
            row.done,
            row.failed,
            "\n".join(row.reasons),
        )
        for row in rows
    ]
    print_table(columns, table, title=f"{src.workspace} → {dst.workspace}")


@mirror.command()
@add_options(*_WHICH)
@click.option("--include-pending", is_flag=True, help="Also runs that are not done.")
@add_options(*_SIDES)
def verify(include_pending: bool, as_json: bool, **given: Any) -> None:
    """Compare both sides point by point and byte by byte; exit 1 if they differ.

    By default the runs that are done.
    """
    from dbx_aml.tracking.mirror.compare import compare

    which = {name: given.pop(name) for name in ("experiments", "run_ids", "since")}
    src, dst = _sides(**given)
    runs = [
        run
        for run in _runs(src, include_unmarked=True, **which)
        if include_pending or which["run_ids"] or _is_done(run)
    ]
    found = [one for _, differences in compare(src, dst, runs) for one in differences]
    if as_json:
        differences = [asdict(one) for one in found]
        answer = {"runs": len(runs), "differences": differences}
        print_json(answer)
    else:
        click.echo(f"{len(runs)} runs compared, {len(found)} differences")
        if found:
            headers = ("run id", "what", "name", src.workspace, dst.workspace)
            columns = [Column(header) for header in headers]
            rows = [(one.run_id, one.what, one.key, one.src, one.dst) for one in found]
            print_table(columns, rows, title="Differences")
    if found:
        runs_with = len({one.run_id for one in found})
        raise MirrorError(
            f"both sides must be equal: {runs_with} of {len(runs)} runs differ; mirror them with "
            "'dbx-aml mirror --include-unmarked'"
        )


def _once(
    *,
    include_unmarked: bool,
    dry_run: bool,
    as_json: bool,
    experiments: tuple[str, ...],
    run_ids: tuple[str, ...],
    since: int | None,
    **given: Any,
) -> None:
    from dbx_aml.tracking.mirror.mirror_runs import reconcile

    src, dst = _sides(**given)
    runs = _runs(
        src,
        include_unmarked=include_unmarked,
        experiments=experiments,
        run_ids=run_ids,
        since=since,
    )
    if dry_run:
        print_plan(src, dst, list(runs), as_json=as_json)
        return
    outcomes: list[Outcome] = []
    stopped: DbxAmlError | None = None
    with mirror_progress() as report:
        try:
            for outcome in reconcile(src, dst, runs, report=report):
                outcomes.append(outcome)
        except MirrorError as err:
            stopped = err
    print_outcomes(src, dst, outcomes, as_json=as_json)
    if stopped:
        raise stopped
    wrong = [one for one in outcomes if one.error is not None]
    if wrong:
        raise MirrorError(
            f"every run must be mirrored: {len(wrong)} of {len(outcomes)} were not; the first one, "
            f"{wrong[0].run_id}: {wrong[0].reason}"
        )


def _sides(
    config: str | None, source_tracking_uri: str | None, destination_tracking_uri: str | None
) -> tuple[Side, Side]:
    """Return both sides, which answer; Azure ML is asked with the link's credential."""
    from dbx_aml.link.link import Link
    from dbx_aml.tracking.connect import set_connected_link
    from dbx_aml.tracking.mirror.server_pair import prove, sides

    link = Link.load(config=config)
    set_connected_link(link)
    # Many runs at once share MLflow's connections.
    os.environ.setdefault("MLFLOW_HTTP_POOL_MAXSIZE", "32")
    os.environ["DBX_AML_RETRY_TIMEOUT_S"] = f"{link.retry_timeout_s:g}"
    if link.aml_workspace is not None:
        os.environ.setdefault("AZUREML_CURRENT_CLOUD", link.aml_workspace.cloud)
    found = sides(
        link,
        source_tracking_uri=source_tracking_uri,
        destination_tracking_uri=destination_tracking_uri,
    )
    for side in found:
        prove(side, link)
    return found


def _runs(
    src: Side,
    *,
    include_unmarked: bool,
    experiments: tuple[str, ...],
    run_ids: tuple[str, ...],
    since: int | None,
) -> Iterator[Run]:
    from dbx_aml.tracking.mirror import pending_runs as queue

    if run_ids:
        return iter(queue.by_id(src, run_ids))
    search = queue.every if include_unmarked else queue.pending
    return search(src, queue.experiment_ids(src, experiments), since=since)


def _is_done(run: Run) -> bool:
    from dbx_aml.tracking.mirror import tags as tag

    is_active = run.info.lifecycle_stage == "active"
    return is_active and bool(run.data.tags.get(tag.STATE) == tag.DONE)
