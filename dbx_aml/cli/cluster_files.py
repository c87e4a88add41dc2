"""`dbx-aml cluster policy|snippet`: for clusters that are not there yet, and for serverless."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.cluster_attach import (
    dry_run_option,
    link_option,
    on_failure_option,
    wheelhouse_option,
)
from dbx_aml.cli.options import profile_option

if TYPE_CHECKING:
    from dbx_aml.cluster.files import Parts
    from dbx_aml.cluster.folder import Folder

_to = click.option(
    "--folder",
    required=True,
    help="Folder for script, wheels and config.json, best in a volume: "
    "/Volumes/CATALOG/SCHEMA/VOLUME.",
)
_DRY = "Print only; upload nothing."


@click.command()
@_to
@link_option
@wheelhouse_option
@on_failure_option
@click.option(
    "--method",
    type=click.Choice(["init-script", "libraries"]),
    default="init-script",
    show_default=True,
    help="An init script, or wheels as libraries of the policy.",
)
@profile_option
@dry_run_option(_DRY)
def policy(
    folder: str,
    config: Path | None,
    wheelhouse: Path | None,
    on_failure: str,
    method: str,
    profile: str | None,
    dry_run: bool,
) -> None:
    """Print a cluster policy that prepares every new cluster made by it; upload what it names.

    Nothing but the folder is changed. An administrator makes the policy of what is printed:
    databricks cluster-policies create --json @FILE
    """
    from dbx_aml.cluster.files import gather
    from dbx_aml.cluster.snippets import policy_text

    parts = gather(config, wheelhouse, method=method, on_failure=on_failure)
    uploaded = _ready(folder, profile, parts, dry_run)
    click.echo(policy_text(uploaded, parts))


@click.command()
@click.argument("kind", type=click.Choice(["job", "serverless"]))
@_to
@link_option
@wheelhouse_option
@on_failure_option
@profile_option
@dry_run_option(_DRY)
def snippet(
    kind: str,
    folder: str,
    config: Path | None,
    wheelhouse: Path | None,
    on_failure: str,
    profile: str | None,
    dry_run: bool,
) -> None:
    """Print what to paste into a job that makes its own cluster, or runs on serverless compute."""
    from dbx_aml.cluster.files import gather
    from dbx_aml.cluster.snippets import job_cluster_text, serverless_text

    # Serverless takes wheels only.
    method = "libraries" if kind == "serverless" else "init-script"
    parts = gather(config, wheelhouse, method=method, on_failure=on_failure)
    uploaded = _ready(folder, profile, parts, dry_run)
    click.echo((serverless_text if kind == "serverless" else job_cluster_text)(uploaded, parts))


def _ready(path: str, profile: str | None, parts: Parts, is_dry: bool) -> Folder:
    """Return the folder, with the files in it unless nothing is to be uploaded."""
    from dbx_aml.cluster.attach_record import SCRIPT
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.folder import Folder

    folder = Folder(Client(profile), path)
    if not is_dry:
        files = parts.files(folder)
        for name in files.content:
            folder.write(name, files.read(name))
        click.echo(f"uploaded {len(files.content)} files to {folder}", err=True)
    if parts.has_script and folder.is_volume:
        text = f"in standard access mode the metastore's allowlist must have {folder.file(SCRIPT)}"
        click.echo(text, err=True)
    return folder
