"""`dbx-aml batches`: the batches of an output table, from its ledger."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from dbx_aml.cli.options import json_option, max_results_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_line, print_table, table_with_version


@click.command()
@click.argument("output_table")
@max_results_option("batches")
@json_option
def batches(output_table: str, max_results: int, as_json: bool) -> None:
    """List the batches of a scored table.

    Each batch has its rows, its model version and the version of its input. The number of a batch
    is `_scoring.batch` in the output table.
    """
    from dbx_aml.scoring.ledger import batches as read_batches

    with show_progress("Reading the ledger"):
        rows = [row.asDict() for row in read_batches(output_table).limit(max_results).collect()]
    for row in rows:
        # The number of a batch is its start. Spark gives `started_at` in this machine's zone.
        row["started_at"] = datetime.fromtimestamp(row["batch"] / 1e6, UTC)
    if as_json:
        print_json([{**row, "started_at": row["started_at"].isoformat()} for row in rows])
        return
    if not rows:
        print_line(f"no batches in {output_table}")
        return
    columns = [
        Column("batch"),
        Column("started (UTC)", is_optional=True),
        Column("state"),
        Column("read", is_number=True),
        Column("scored", is_number=True),
        Column("quarantined", is_number=True),
        Column("model"),
        Column("input", is_optional=True),
        Column("batch id", is_optional=True),
    ]
    cells = [
        (
            str(row["batch"]),
            f"{row['started_at']:%Y-%m-%d %H:%M:%S}",
            row["state"],
            *(row[name] for name in ("rows_read", "rows_scored", "rows_quarantined")),
            row["model_uri"],
            table_with_version(row["input_table"], row["input_version_to"]),
            row["batch_id"],
        )
        for row in rows
    ]
    print_table(columns, cells)
