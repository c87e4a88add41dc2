"""`dbx-aml cluster attach|detach|status`: show the change, ask, carry it out, show the result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.errors import ClusterError
from dbx_aml._common.text import plural
from dbx_aml.cli.options import (
    add_options,
    config_option,
    init_timeout_option,
    json_option,
    on_failure_option,
    profile_option,
    wheelhouse_option,
)
from dbx_aml.cli.tables import print_fields, print_json, print_line

if TYPE_CHECKING:
    from dbx_aml.cluster.attach import AttachResult
    from dbx_aml.cluster.attach_record import AttachMethod
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import Cluster
    from dbx_aml.cluster.folder import ClusterFolder
    from dbx_aml.cluster.settings_change import SettingsChange
    from dbx_aml.cluster.status import ClusterStatus

_change_options = add_options(
    click.option(
        "--folder",
        help="Folder for script, wheels and record, in a volume: "
        "/Volumes/CATALOG/SCHEMA/VOLUME. Each cluster has a subfolder. With --method libraries "
        "it may be in the workspace.  [default: .dbx_aml in your workspace folder]",
    ),
    profile_option,
    click.option("--dry-run", is_flag=True, help="Show the change; write nothing."),
    click.option("--yes", is_flag=True, help="Do not ask."),
)


@click.command()
@click.argument("cluster")
@add_options(config_option)
@click.option(
    "--method",
    type=click.Choice(["init-script", "libraries"]),
    default="init-script",
    show_default=True,
    help="An init script, or wheels as cluster libraries.",
)
@add_options(wheelhouse_option, on_failure_option, init_timeout_option)
@click.option(
    "--skip-allowlist-check",
    is_flag=True,
    help="Do not read the metastore's allowlist: it allows the script already.",
)
@_change_options
def attach(
    cluster: str,
    config: str | None,
    method: AttachMethod,
    wheelhouse: Path | None,
    on_failure: str,
    init_timeout_s: int,
    skip_allowlist_check: bool,
    folder: str | None,
    profile: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Prepare CLUSTER, an id or a unique name, for the link.

    Script and variables are added; other settings of the cluster stay. The command shows the
    change, names a restart, and asks. Run it again after an interruption, or for a new link.
    """
    from dbx_aml.cluster.attach import attach_cluster
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.files import collect_files
    from dbx_aml.cluster.plan import plan_attach

    # Wrong files are reported before the first call of a service.
    files = collect_files(
        config, wheelhouse, method=method, on_failure=on_failure, init_timeout_s=init_timeout_s
    )
    client = Client(profile)
    current = find_cluster(client, cluster)
    folder_files = files.in_folder(_cluster_folder(client, current, folder))
    plan = plan_attach(client, current, folder_files, skip_allowlist_check=skip_allowlist_check)

    _print_change(plan.change)
    if not plan.is_empty:
        for line in plan.file_lines():
            print_line(line, color={"+": "green", "-": "red"}[line[0]])
    if plan.overriding_variables:
        names = ", ".join(plan.overriding_variables)
        _print_progress(f"variables of the cluster may override the link: {names}")
    print_other_writers(folder_files.folder)
    if dry_run:
        return
    if plan.is_empty:
        print_line(f"{current} is attached already: nothing to do")
        return
    _confirm(current, yes=yes, is_restart=plan.restarts_cluster)
    _print_attach_result(attach_cluster(client, plan, _print_progress))


@click.command()
@click.argument("cluster")
@_change_options
def detach(cluster: str, folder: str | None, profile: str | None, dry_run: bool, yes: bool) -> None:
    """Undo the attach of CLUSTER.

    The settings return to their values from before the attach.
    """
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.detach import detach_cluster, plan_detach

    client = Client(profile)
    current = find_cluster(client, cluster)
    plan = plan_detach(client, current, _cluster_folder(client, current, folder))

    _print_change(plan.change)
    print_line(f"  files in {plan.folder} are removed")
    for message in plan.messages:
        _print_progress(message)
    if dry_run:
        return
    _confirm(current, yes=yes, is_restart=plan.restarts_cluster)
    detached = detach_cluster(client, plan, _print_progress)
    print_line(f"{detached} is {detached.state} and as it was before")


@click.command()
@click.argument("cluster")
@add_options(profile_option, json_option)
def status(cluster: str, profile: str | None, as_json: bool) -> None:
    """Show how CLUSTER is attached.

    The result of the init script is read from the driver. Changes nothing.
    """
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.clusters import find_cluster
    from dbx_aml.cluster.status import read_status

    client = Client(profile)
    cluster_status = read_status(client, find_cluster(client, cluster))
    if as_json:
        print_json(cluster_status.to_dict())
    else:
        print_fields(_status_fields(cluster_status))
    if cluster_status.problems:
        raise ClusterError(cluster_status.problems[0])


def _cluster_folder(client: Client, cluster: Cluster, parent: str | None) -> ClusterFolder:
    """Return the cluster's subfolder of a folder; by default the folder that it reads from."""
    from dbx_aml.cluster.attach_record import attached_folder
    from dbx_aml.cluster.folder import ClusterFolder

    path = attached_folder(cluster)
    if parent is None and path is not None:
        return ClusterFolder(client, path)
    parent = parent or f"/Workspace/Users/{client.user}/.dbx_aml"
    return ClusterFolder(client, f"{parent}/{cluster.cluster_id}")


def print_other_writers(folder: ClusterFolder) -> None:
    """Name the users and groups that could change script and wheels after they are uploaded."""
    writers = folder.other_writers()
    if writers:
        _print_progress(
            f"can write to {folder}, and so run code as root on its clusters: {', '.join(writers)}"
        )


def _print_change(change: SettingsChange) -> None:
    cluster = change.cluster
    print_line(f"{cluster}: {cluster.state}, {cluster.access_mode}, {cluster.spark_version}")
    for line in change.diff_lines():
        print_line(line, color={"+": "green", "-": "red"}.get(line[0]))


def _confirm(cluster: Cluster, *, yes: bool, is_restart: bool) -> None:
    """Name a restart, and continue only if the user agrees."""
    if is_restart:
        _print_progress(f"{cluster.name} restarts: all work on it ends now")
    elif cluster.state == "TERMINATED":
        _print_progress(f"{cluster.name} is TERMINATED and stays so")
    if yes:
        return
    if not _is_interactive():
        raise click.UsageError("No terminal to ask on: add --yes, or --dry-run to only look.")
    click.confirm("Continue?", abort=True, err=True)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _print_progress(message: str) -> None:
    print_line(message, is_error=True)


def _print_attach_result(result: AttachResult) -> None:
    cluster, marker = result.cluster, result.marker
    if marker is None:
        if result.unverified_reason:
            _print_progress(f"not verified: {result.unverified_reason}")
        print_line(f"{cluster} is attached, {cluster.state}")
        return
    packages = plural(len(marker.installed), "package")
    seconds = sum(marker.steps.values())
    print_line(
        f"{cluster} is attached, {cluster.state}: init script ok, {packages} added from "
        f"{marker.packages_from} in {seconds:.1f} s"
    )


def _status_fields(status: ClusterStatus) -> list[tuple[str, Any]]:
    cluster, record, marker = status.cluster, status.record, status.marker
    fields: list[tuple[str, Any]] = [
        ("cluster", cluster),
        ("state", f"{cluster.state}, {cluster.access_mode}, {cluster.spark_version}"),
    ]
    if status.folder is None:
        fields.append(("attached", "no"))
    else:
        method = f"by {record.method}, version {record.version}" if record else "yes"
        fields += [("attached", method), ("folder", status.folder)]
    fields += status.variables.items()
    fields += [(Path(path).name, text) for path, text in status.libraries.items()]
    if marker:
        fields.append(("init script", f"{marker.status}, {marker.time}, {marker.packages_from}"))
        fields += [("added", f"{name} {version}") for name, version in marker.installed.items()]
        fields += [("message", message) for message in marker.messages]
    return fields + [("problem", problem) for problem in status.problems]
