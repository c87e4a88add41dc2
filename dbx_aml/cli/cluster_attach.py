"""`dbx-aml cluster attach|detach|status`: what would change, then the change, then how it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import ClusterError
from dbx_aml.cli.options import json_option, profile_option
from dbx_aml.cli.tables import print_fields, print_json

if TYPE_CHECKING:
    from dbx_aml.cluster.attach import Attached
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import Cluster
    from dbx_aml.cluster.folder import Folder
    from dbx_aml.cluster.settings_change import Change
    from dbx_aml.cluster.status import Status

_to = click.option(
    "--folder",
    help="Folder for script, wheels and record, best in a volume: /Volumes/CATALOG/SCHEMA/VOLUME. "
    "Each cluster has its own in it.  [default: .dbx_aml in your workspace folder]",
)


def dry_run_option(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a command that may only look."""
    return click.option("--dry-run", is_flag=True, help=text)


_dry_run = dry_run_option("Show the difference; write nothing.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
link_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A config.json or its folder.  [default: as found]",
)
wheelhouse_option = click.option(
    "--wheelhouse",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Local folder that 'dbx-aml cluster wheelhouse' filled.  [default: the package index]",
)
on_failure_option = click.option(
    "--on-failure",
    type=click.Choice(["continue", "stop"]),
    default="continue",
    show_default=True,
    help="Whether a cluster starts when its init script failed.",
)


def changes(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that changes a cluster."""
    for option in (_yes, _dry_run, profile_option, _to):
        command = option(command)
    return command


@click.command()
@click.argument("cluster")
@link_option
@click.option(
    "--method",
    type=click.Choice(["init-script", "libraries", "policy"]),
    default="init-script",
    show_default=True,
    help="An init script; wheels as cluster libraries; or a cluster policy that fixes the script.",
)
@wheelhouse_option
@on_failure_option
@click.option(
    "--skip-allowlist-check",
    "skip_allowlist_check",
    is_flag=True,
    help="The metastore's allowlist takes the script: do not look.",
)
@changes
def attach(
    cluster: str,
    config: Path | None,
    method: str,
    wheelhouse: Path | None,
    on_failure: str,
    skip_allowlist_check: bool,
    folder: str | None,
    profile: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Prepare CLUSTER, an id or a unique name, for a link.

    What it has stays: our script and variables are added to its own. Shows what would change, says
    what would restart, and asks. Run it again after it was interrupted, or to bring it up to date.
    """
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.files import gather
    from dbx_aml.cluster.plan import plan_attach

    # First what needs no network.
    parts = gather(config, wheelhouse, method=method, on_failure=on_failure)
    client = Client(profile)
    found = find_cluster(client, cluster)
    parts.check_runtime(found)
    files_folder = _folder(client, found, folder)
    plan = plan_attach(
        client,
        found,
        files_folder,
        method=method,
        files=parts.files(files_folder),
        variables=parts.variables(files_folder),
        wheels=parts.libraries,
        skip_allowlist_check=skip_allowlist_check,
    )
    _show(plan.change, plan.has_new_files and f"files in {files_folder} are written")
    if plan.overriding:
        _say(f"variables of the cluster go before the link: {', '.join(plan.overriding)}")
    if dry_run:
        return
    if plan.is_empty:
        click.echo(f"{found} is attached already: nothing to do")
        return
    _ask(yes, found, plan.restarts)
    _say_end(plan.run(client, _say))


@click.command()
@click.argument("cluster")
@changes
def detach(cluster: str, folder: str | None, profile: str | None, dry_run: bool, yes: bool) -> None:
    """Take off CLUSTER what attach put there; what it had before is put back."""
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.detach import plan_detach

    client = Client(profile)
    found = find_cluster(client, cluster)
    files_folder = _folder(client, found, folder)
    plan = plan_detach(client, found, files_folder)
    _show(plan.change, f"files in {files_folder} are removed")
    for note in plan.notes:
        _say(note)
    if dry_run:
        return
    _ask(yes, found, plan.restarts)
    done = plan.run(client, _say)
    click.echo(f"{done} is {done.state} and as it was before")


@click.command()
@click.argument("cluster")
@profile_option
@json_option
def status(cluster: str, profile: str | None, as_json: bool) -> None:
    """Show what of us is on CLUSTER, and what the init script did there. Reads only."""
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.status import cluster_status

    client = Client(profile)
    found = cluster_status(client, find_cluster(client, cluster))
    if as_json:
        print_json(found.as_json())
    else:
        _print_status(found)
    if found.problems:
        raise ClusterError(found.problems[0])


def _folder(client: Client, cluster: Cluster, parent: str | None) -> Folder:
    """Return the folder of a cluster: under what was asked for, else where it is attached from."""
    from dbx_aml.cluster.attach_record import attached_path
    from dbx_aml.cluster.folder import Folder

    path = attached_path(cluster)
    if parent is None and path is not None:
        return Folder(client, path)
    home = parent or f"/Workspace/Users/{client.user}/.dbx_aml"
    return Folder(client, f"{home}/{cluster.cluster_id}")


def _show(change: Change, files: object) -> None:
    cluster = change.cluster
    kind = f"{cluster.access_mode}, {cluster.spec.get('spark_version')}"
    click.echo(f"{cluster}: {cluster.state}, {kind}")
    for line in change.diff():
        colour = {"+": "green", "-": "red"}.get(line[0])
        click.secho(line, fg=colour)
    if files:
        click.echo(f"  {files}")


def _ask(yes: bool, cluster: Cluster, restarts: bool) -> None:
    """Say what would restart, and go on only if a person says so."""
    if restarts:
        _say(f"{cluster.name} restarts: whatever runs on it now ends")
    elif cluster.state == "TERMINATED":
        _say(f"{cluster.name} is TERMINATED and stays so")
    if yes:
        return
    if not _is_somebody_there():
        raise click.UsageError("Nobody is there to ask: add --yes, or --dry-run to only look.")
    click.confirm("Go on?", abort=True, err=True)


def _is_somebody_there() -> bool:
    return sys.stdin.isatty()


def _say(text: str) -> None:
    click.echo(text, err=True)


def _say_end(done: Attached) -> None:
    marker = done.marker
    if marker is None:
        if done.note:
            _say(f"not verified: {done.note}")
        click.echo(f"{done.cluster} is attached, {done.cluster.state}")
        return
    seconds, count = sum(marker.steps.values()), len(marker.installed)
    click.echo(
        f"{done.cluster} is attached, {done.cluster.state}: init script ok, "
        f"{count} package{'' if count == 1 else 's'} added from {marker.packages_from} "
        f"in {seconds:.1f} s"
    )


def _print_status(found: Status) -> None:
    cluster, record, marker = found.cluster, found.record, found.marker
    rows: list[tuple[str, Any]] = [
        ("cluster", cluster),
        ("state", f"{cluster.state}, {cluster.access_mode}, {cluster.spec.get('spark_version')}"),
    ]
    if found.path is None:
        rows.append(("attached", "no"))
    else:
        how = f"via {record.method}, by version {record.version}" if record else "yes"
        rows += [("attached", how), ("folder", found.path)]
    if record:
        rows += [(name, value) for name, value in record.variables.items()]
    rows += [(Path(path).name, status) for path, status in found.libraries.items()]
    if marker:
        rows.append(("init script", f"{marker.status}, {marker.time}, from {marker.packages_from}"))
        rows += [("added", f"{name} {one}") for name, one in marker.installed.items()]
        rows += [("kept", str(one)) for one in marker.kept_packages]
        rows += [("note", note) for note in marker.messages]
    rows += [("problem", problem) for problem in found.problems]
    print_fields(rows)
