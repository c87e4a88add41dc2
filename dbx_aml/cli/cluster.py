"""`dbx-aml cluster`: bring the package to a cluster, look at it there, take it off again."""

from __future__ import annotations

import click

from dbx_aml.cli.attach import attach, detach, status
from dbx_aml.cli.snippet import policy, snippet


@click.group()
def cluster() -> None:
    """Prepare a cluster: its packages, its link, its variables."""


for _command in (attach, detach, status, policy, snippet):
    cluster.add_command(_command)
