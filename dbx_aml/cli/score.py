"""`dbx-aml score`: a table in, a table out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.options import json_option, registry_uri_option, tracking_uri_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import print_fields, print_json, print_line, table_with_version
from dbx_aml.scoring.plan import ENVIRONMENTS, SOURCES, WRITE_MODES

if TYPE_CHECKING:
    from dbx_aml.scoring.result import ScoringResult


@click.command()
@click.option(
    "--model-uri",
    help="models:/NAME/VERSION, models:/NAME@ALIAS, models:/CATALOG.SCHEMA.NAME@ALIAS, "
    "runs:/ID/PATH, or a path. An alias is resolved once, at the start.",
)
@click.option("--segment-column", help="Column whose values choose the model of a row.")
@click.option(
    "--segment-models",
    help="Model URI of each segment: a JSON file, a table with segment and model_uri, or a URI "
    "with the column in braces. --model-uri is then the model of every other row.",
)
@click.option("--input-table", default="", help="A table or view, or delta.`/path`.")
@click.option("--output-table", required=True, help="Created if it does not exist.")
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    default="table",
    show_default=True,
    help="kafka: a topic or an event hub, in the place of --input-table.",
)
@click.option("--topic", default="", help="Topic, for --source kafka.")
@click.option("--bootstrap-servers", default="", help="Hosts with ports, for --source kafka.")
@click.option(
    "--connection-secret",
    default="",
    help="Place of the login, <scope>/<key> or env:NAME: a connection string of an event hub, or "
    "a line of sasl.jaas.config.  [default: none]",
)
@tracking_uri_option
@registry_uri_option
@click.option(
    "--config",
    help="A config.json, or the folder of one: servers and identity of the link.  [default: none]",
)
@click.option(
    "--quarantine-table",
    help="Table of the rows that cannot be scored.  [default: the output's name with _quarantine]",
)
@click.option("--row-filter", help="SQL predicate on the input, for example 'month = 10'.")
@click.option(
    "--output-columns",
    help="Input columns for the output, separated by commas.  [default: all]",
)
@click.option(
    "--key-columns", help="Columns that identify a row, for --write-mode merge or follow."
)
@click.option(
    "--write-mode",
    type=click.Choice(WRITE_MODES),
    default="append",
    show_default=True,
    help="How scored rows go into the output table.",
)
@click.option("--replace-where", help="SQL predicate on the output, for --write-mode replace.")
@click.option(
    "--challenger-uri",
    help="Second model for the same rows, as --model-uri; its predictions are in _challenger.",
)
@click.option(
    "--checkpoint-location",
    help="Folder, for --write-mode incremental or follow.  "
    "[default: the output's path with _checkpoint, if it has one]",
)
@click.option(
    "--trigger",
    default="available-now",
    show_default=True,
    help="available-now, or the interval of a stream, for example '30 seconds'.",
)
@click.option(
    "--batch-id",
    help="Name of the batch.  [default: from input table and version, model, filter, output]",
)
@click.option(
    "--max-quarantined-rows", default="1%", show_default=True, help="A count or a percentage."
)
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    default="local",
    show_default=True,
    help="Packages and Python of the model: local for this machine's, model for the model's own, "
    "auto for its own if this machine's differ in what the model depends on.",
)
@click.option(
    "--price-per-core-hour", help="Price of an hour of one core, for the cost in --dry-run."
)
@click.option(
    "--rescore",
    is_flag=True,
    help="Score a batch again whose rows were removed, or whose batch id named other rows; "
    "for --write-mode follow: all rows.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan; write nothing.")
@json_option
def score(config: str | None, as_json: bool, **arguments: Any) -> None:
    """Score a table with a registered model.

    Each row goes into the output table or the quarantine table.

    Each row is written exactly once: after a crash, start the same job again.
    """
    # Imported here, so that the other commands start quickly.
    from dbx_aml.scoring.score_table import score_table

    with show_progress("Starting", "tasks") as progress:
        if config:
            from dbx_aml.tracking.connect import connect

            connect(config=config)

        def show_step(step: str, done: int, total: int) -> None:
            """Print the plan, which stays on the screen; show each other step."""
            if step.startswith("plan: "):
                print_line(step, is_error=True)
            else:
                progress(step, done, total)

        result = score_table(progress=show_step, **arguments)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result)


def _print_result(result: ScoringResult) -> None:
    fields: list[tuple[str, Any]] = []
    if result.plan is None:
        fields += [
            ("rows read", result.rows_read),
            ("rows scored", result.rows_scored),
            ("rows quarantined", result.rows_quarantined),
            *([("rows deleted", result.rows_deleted)] if result.rows_deleted else []),
            *([("rows removed since", _removed_text(result))] if result.rows_removed else []),
            ("seconds", result.seconds),
            ("seconds expected", result.expected_seconds),
            ("rows a second", round(result.rows_per_second)),
        ]
    version = "" if result.model_version is None else f" (version {result.model_version})"
    fields += [
        ("model", f"{result.model_uri}{version}"),
        # As text: a number that is copied into a query has no separators.
        ("batch", None if result.batch is None else str(result.batch)),
        ("batch id", result.batch_id),
        ("write mode", result.write_mode),
        ("input", table_with_version(result.input_table, result.input_version)),
        ("output", table_with_version(result.output_table, result.output_version)),
        ("quarantine", result.quarantine_table),
    ]
    for name, value in (result.plan or {}).items():
        fields.append((name.replace("_", " "), _plan_text(value)))
    print_fields(fields, title=_TITLES[result.status])


_TITLES = {
    "scored": "Scored",
    "already_scored": "Already scored: this batch is in the output table, nothing was written",
    "no_new_rows": "No new rows in the input table since the last run, nothing was written",
    "stopped": "Stopped between two batches: the next run goes on from there",
    "planned": "Dry run: nothing was written",
}


def _removed_text(result: ScoringResult) -> str:
    return f"{result.rows_removed:,}" + (f" by {result.removed_by}" if result.removed_by else "")


def _plan_text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {text}" for name, text in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
