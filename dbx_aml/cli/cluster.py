"""`dbx-aml cluster`: prepare clusters for the link."""

from __future__ import annotations

from pathlib import Path

import click

from dbx_aml._common.paths import write_atomically
from dbx_aml.cli.cluster_attach import attach, detach, status
from dbx_aml.cli.cluster_files import snippet
from dbx_aml.cli.options import (
    add_options,
    config_option,
    init_timeout_option,
    json_option,
    on_failure_option,
    wheelhouse_option,
)
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_line, print_table


@click.group()
def cluster() -> None:
    """Prepare clusters: packages, link, variables."""


for _command in (attach, detach, status, snippet):
    cluster.add_command(_command)


@cluster.command("init-script")
@add_options(config_option, wheelhouse_option)
@click.option(
    "--wheelhouse-path",
    default="",
    help="Folder on the cluster with the same wheels, for example /Volumes/main/ml/wheelhouse.",
)
@click.option(
    "--runtime",
    help="Runtime whose list of hashes the script carries, instead of a wheelhouse: the nodes' "
    "package index has the wheels, also the one of dbx-aml.",
)
@click.option(
    "--wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --runtime, wheel of dbx-aml on that index.  [required]",
)
@add_options(on_failure_option, init_timeout_option)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the script, instead of stdout.",
)
def init_script(
    config: str | None,
    wheelhouse: Path | None,
    wheelhouse_path: str,
    runtime: str | None,
    wheel: Path | None,
    on_failure: str,
    init_timeout_s: int,
    output: Path | None,
) -> None:
    """Print the init script with the link and the wheels' hashes.

    The nodes install no other wheels, even if the folder on the cluster was changed. They need no
    variable of the cluster: runtime 19 hides variables from init scripts in standard access mode.
    """
    from dbx_aml.cluster.files import read_cluster_link
    from dbx_aml.cluster.init_script import render
    from dbx_aml.cluster.wheelhouse import index_requirements, read_wheelhouse, select_runtime

    script = render(
        read_cluster_link(config),
        wheelhouse_path=wheelhouse_path,
        wheelhouse_sha256="" if runtime else read_wheelhouse(wheelhouse).sha256,
        requirements=index_requirements(select_runtime(runtime), wheel) if runtime else "",
        on_failure=on_failure,
        init_timeout_s=init_timeout_s,
    )
    # As bytes: a text stream of Windows would write CRLF, and Bash runs no such script.
    if output is None:
        click.echo(script.encode(), nl=False)
    else:
        write_atomically(output, script)


@cluster.command()
@click.option(
    "--folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Local folder for the wheels.",
)
@click.option("--runtime", help="Runtime, for example 17.3, 17.3-ml, 18 or serverless-4.")
@click.option(
    "--constraints",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Output of 'pip freeze' on the cluster, instead of a runtime.",
)
@click.option(
    "--python", default="3.12", show_default=True, help="Python version of the constraints."
)
@add_options(json_option)
def wheelhouse(
    folder: Path,
    runtime: str | None,
    constraints: Path | None,
    python: str,
    as_json: bool,
) -> None:
    """Download the wheels for one runtime.

    The init script installs them on the nodes and checks their hashes. Give the folder to 'dbx-aml
    cluster attach --wheelhouse'. Or upload it to a volume and give its path to 'dbx-aml cluster
    init-script --wheelhouse-path'.
    """
    from dbx_aml.cluster.wheelhouse import build_wheelhouse, select_runtime

    packages = select_runtime(runtime, constraints, python)
    with show_progress(f"Resolving for runtime {packages.name}, Python {packages.python}"):
        built = build_wheelhouse(folder, packages)
    if as_json:
        print_json(
            {
                "folder": str(built.folder),
                "runtime": built.runtime,
                "python": built.python,
                "packages": built.packages,
                "newer_packages": list(built.newer_packages),
            }
        )
        return
    print_table(
        [Column("package"), Column("version")],
        built.packages.items(),
        title=f"{built.folder} for runtime {built.runtime}, Python {built.python}",
    )
    for message in built.newer_packages:
        print_line(message, is_error=True)
