"""`dbx-aml cluster`: prepare clusters for the link."""

from __future__ import annotations

from pathlib import Path

import click

from dbx_aml.cli.cluster_attach import attach, detach, on_failure_option, status
from dbx_aml.cli.cluster_files import policy, snippet
from dbx_aml.cli.options import json_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_table


@click.group()
def cluster() -> None:
    """Prepare clusters: their packages, their link, their variables."""


for _command in (attach, detach, status, policy, snippet):
    cluster.add_command(_command)


@cluster.command("init-script")
@click.option(
    "--config",
    type=click.Path(exists=True, path_type=Path),
    default=Path("config.json"),
    show_default=True,
    help="The link's config.json, or its folder.",
)
@click.option(
    "--wheelhouse-path", help="Folder on the cluster, for example /Volumes/main/ml/wheelhouse."
)
@on_failure_option
def init_script(config: Path, wheelhouse_path: str | None, on_failure: str) -> None:
    """Print the init script with a link in it.

    Nodes need no variable of the cluster then; runtime 19 hides those in standard access mode.
    """
    from dbx_aml.cluster.init_script import link_of_file
    from dbx_aml.cluster.init_script import render as rendered

    text = rendered(link_of_file(config), wheelhouse_path=wheelhouse_path, on_failure=on_failure)
    click.echo(text, nl=False)


@cluster.command()
@click.option(
    "--folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Local folder for the wheels.",
)
@click.option("--runtime", help="For example 17.3, 17.3-ml, 18, serverless-4.")
@click.option(
    "--constraints",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What 'pip freeze' says on the cluster, instead of a runtime.",
)
@click.option("--python", default="3.12", show_default=True, help="That goes with the constraints.")
@click.option(
    "--wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="dbx-aml's own, from 'make build'.  [default: this release, from the package index]",
)
@json_option
def wheelhouse(
    folder: Path,
    runtime: str | None,
    constraints: Path | None,
    python: str,
    wheel: Path | None,
    as_json: bool,
) -> None:
    """Fill a local folder with the init script's wheels.

    They are all that it adds to nodes of one runtime, with hashes. Upload the folder to a volume
    and name it in DBX_AML_WHEELHOUSE_PATH or in 'dbx-aml cluster init-script'.
    """
    from dbx_aml.cluster.wheelhouse import build_wheelhouse, select_runtime

    runtime_packages = select_runtime(runtime, constraints, python)
    label = f"runtime {runtime_packages.name}, Python {runtime_packages.python}"
    with show_progress(f"Resolving for {label}"):
        made = build_wheelhouse(folder, runtime_packages, wheel)
    if as_json:
        kept_packages = [vars(one) for one in made.kept_packages]
        about = {"folder": str(made.folder), "runtime": made.runtime, "python": made.python}
        print_json({**about, "packages": made.packages, "kept_packages": kept_packages})
        return
    print_table(
        [Column("package"), Column("version")],
        made.packages.items(),
        title=f"{made.folder} for runtime {made.runtime}, Python {made.python}",
    )
    for one in made.kept_packages:
        click.echo(f"{one}; the init script proves on each node that this works", err=True)
