"""`dbx-aml cluster snippet`: text for the clusters of jobs and for serverless compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbx_aml.cli.cluster_attach import print_other_writers
from dbx_aml.cli.options import (
    add_options,
    config_option,
    init_timeout_option,
    on_failure_option,
    profile_option,
    wheelhouse_option,
)
from dbx_aml.cli.tables import print_line

if TYPE_CHECKING:
    from dbx_aml.cluster.attach_record import AttachMethod
    from dbx_aml.cluster.files import ClusterFiles, FolderFiles

_folder_options = add_options(
    click.option(
        "--folder",
        required=True,
        help="Folder for script, wheels and config.json, in a volume: "
        "/Volumes/CATALOG/SCHEMA/VOLUME. Wheels as libraries may be in the workspace.",
    ),
    config_option,
    wheelhouse_option,
    profile_option,
    click.option("--dry-run", is_flag=True, help="Print only; upload nothing."),
)


@click.group()
def snippet() -> None:
    """Print text for a job or a cluster policy.

    The files that the text names are uploaded.
    """


@snippet.command()
@add_options(on_failure_option, init_timeout_option)
@_folder_options
def job(
    config: str | None,
    wheelhouse: Path | None,
    on_failure: str,
    init_timeout_s: int,
    folder: str,
    profile: str | None,
    dry_run: bool,
) -> None:
    """Print YAML for a job that makes its own cluster."""
    from dbx_aml.cluster.files import collect_files
    from dbx_aml.cluster.snippets import job_snippet

    files = collect_files(
        config,
        wheelhouse,
        method="init-script",
        on_failure=on_failure,
        init_timeout_s=init_timeout_s,
    )
    print_line(job_snippet(_upload_files(files, folder, profile, is_dry_run=dry_run)))


@snippet.command()
@_folder_options
def serverless(
    config: str | None, wheelhouse: Path | None, folder: str, profile: str | None, dry_run: bool
) -> None:
    """Print YAML for a job on serverless compute.

    Serverless compute has no init scripts: the wheels are its dependencies.
    """
    from dbx_aml.cluster.files import collect_files
    from dbx_aml.cluster.snippets import serverless_snippet

    files = collect_files(config, wheelhouse, method="libraries")
    print_line(serverless_snippet(_upload_files(files, folder, profile, is_dry_run=dry_run)))


@snippet.command()
@click.option(
    "--method",
    type=click.Choice(["init-script", "libraries"]),
    default="init-script",
    show_default=True,
    help="An init script, or wheels as libraries of the policy.",
)
@add_options(on_failure_option, init_timeout_option)
@_folder_options
def policy(
    config: str | None,
    wheelhouse: Path | None,
    method: AttachMethod,
    on_failure: str,
    init_timeout_s: int,
    folder: str,
    profile: str | None,
    dry_run: bool,
) -> None:
    """Print JSON for a cluster policy.

    The policy prepares every new cluster that uses it. An administrator makes it:
    databricks cluster-policies create --json @FILE
    """
    from dbx_aml.cluster.files import collect_files
    from dbx_aml.cluster.snippets import policy_snippet

    files = collect_files(
        config, wheelhouse, method=method, on_failure=on_failure, init_timeout_s=init_timeout_s
    )
    print_line(policy_snippet(_upload_files(files, folder, profile, is_dry_run=dry_run)))


def _upload_files(
    files: ClusterFiles, folder: str, profile: str | None, *, is_dry_run: bool
) -> FolderFiles:
    """Upload the files into a folder, unless nothing may be written; return them."""
    from dbx_aml.cluster.client import Client
    from dbx_aml.cluster.folder import ClusterFolder

    def print_progress(message: str) -> None:
        print_line(message, is_error=True)

    folder_files = files.in_folder(ClusterFolder(Client(profile), folder))
    print_other_writers(folder_files.folder)
    if not is_dry_run:
        folder_files.upload(print_progress)
    if folder_files.script and folder_files.folder.is_volume:
        print_progress(
            "in standard access mode the metastore's allowlist must have "
            f"{folder_files.script_path}"
        )
    return folder_files
