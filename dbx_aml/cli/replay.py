"""`dbx-aml replay`: score an earlier batch again, and compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.options import json_option, registry_uri_option, tracking_uri_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import print_fields, print_json, print_line, table_with_version

if TYPE_CHECKING:
    from dbx_aml.scoring.replay import ReplayResult


@click.command()
@click.argument("output_table")
@click.argument("batch")
@tracking_uri_option
@registry_uri_option
@click.option(
    "--config",
    help="A config.json, or the folder of one: servers and identity of the link.  [default: none]",
)
@json_option
def replay(config: str | None, as_json: bool, **arguments: Any) -> None:
    """Score a batch again and compare the rows.

    BATCH is a number or an id that `dbx-aml batches OUTPUT_TABLE` shows. The same model version
    scores the same version of the input. No table changes. Exit 1 if a row is not equal.
    """
    # Imported here, so that the other commands start quickly.
    from dbx_aml.scoring.replay import replay_batch

    with show_progress("Starting", "tasks") as progress:
        if config:
            from dbx_aml.tracking.connect import connect

            connect(config=config)
        result = replay_batch(progress=progress, **arguments)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result)
    if not result.is_equal:
        print_line(
            "dbx-aml: replayed rows must be equal to the rows of the batch: got "
            f"{result.rows_different:,} different, {result.rows_missing:,} missing and "
            f"{result.rows_more:,} more rows; compare the examples and the environment",
            is_error=True,
        )
        raise click.exceptions.Exit(1)


def _print_result(result: ReplayResult) -> None:
    environment = result.environment_differences
    if environment is None:
        environment = ["the ledger does not have the environment of this batch"]
    fields: list[tuple[str, Any]] = [
        ("rows equal", result.rows_equal),
        ("rows different", result.rows_different),
        ("rows missing in the output", result.rows_missing),
        ("rows that only the output has", result.rows_more),
        (
            "rows quarantined",
            f"{result.rows_quarantined:,}, {result.rows_quarantined_before:,} before",
        ),
        ("largest difference", result.largest_difference),
        ("examples", "\n".join(json.dumps(row, ensure_ascii=False) for row in result.examples)),
        ("environment", "\n".join(environment) or "the same"),
        ("model", result.model_uri),
        ("batch", str(result.batch)),
        ("batch id", result.batch_id),
        ("input", table_with_version(result.input_table, result.input_version)),
        ("output", result.output_table),
        ("seconds", result.seconds),
    ]
    print_fields(fields, title="Equal" if result.is_equal else "Not equal")
