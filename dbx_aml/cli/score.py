"""`dbx-aml score`: a table in, a table out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.options import json_option, registry_uri_option, tracking_uri_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import print_fields, print_json

if TYPE_CHECKING:
    from dbx_aml.scoring.result import ScoringResult


@click.command()
@click.option(
    "--model-uri",
    required=True,
    help="models:/NAME/VERSION, models:/NAME@ALIAS, models:/CATALOG.SCHEMA.NAME@ALIAS, "
    "runs:/ID/PATH, or a path. An alias is resolved once, at the start.",
)
@click.option("--input-table", required=True, help="A table or view, or delta.`/path`.")
@click.option("--output-table", required=True, help="Made if it does not exist.")
@tracking_uri_option
@registry_uri_option
@click.option(
    "--config",
    help="A config.json, or the folder of one: servers and identity of the link.  [default: none]",
)
@click.option("--quarantine-table", help="[default: the output's name with _quarantine]")
@click.option("--row-filter", help="SQL predicate on the input, for example 'month = 10'.")
@click.option(
    "--output-columns", help="Input columns for the output, commas between.  [default: all]"
)
@click.option("--key-columns", help="Columns that name a row, for --write-mode merge.")
@click.option(
    "--write-mode",
    type=click.Choice(["append", "incremental", "merge", "replace"]),
    default="append",
    show_default=True,
)
@click.option("--replace-where", help="SQL predicate on the output, for --write-mode replace.")
@click.option(
    "--checkpoint-location",
    help="For --write-mode incremental; a path table has one beside it by default.",
)
@click.option("--batch-id", help="[default: from input table and version, model, filter, output]")
@click.option(
    "--max-quarantined-rows", default="1%", show_default=True, help="A count or a percentage."
)
@click.option(
    "--env-manager",
    default="local",
    show_default=True,
    help="local, or what MLflow's spark_udf takes.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan; write nothing.")
@json_option
def score(config: str | None, as_json: bool, **arguments: Any) -> None:
    """Score a table with a model: good rows into the output, bad ones into the quarantine.

    Exactly once: start it again after a crash, and both tables are as after one clean run.
    """
    # Late: what a command imports is what its start costs.
    from dbx_aml.scoring.score_table import score_table

    with show_progress("Starting", "tasks") as progress:
        if config:
            from dbx_aml.tracking.connect import connect

            connect(config=config)
        result = score_table(progress=progress, **arguments)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result)


def _print_result(result: ScoringResult) -> None:
    rows: list[tuple[str, Any]] = []
    if result.plan is None:
        rows += [
            ("rows read", f"{result.rows_read:,}"),
            ("rows scored", f"{result.rows_scored:,}"),
            ("rows quarantined", f"{result.rows_quarantined:,}"),
            ("seconds", f"{result.seconds:.1f}"),
            ("rows a second", f"{result.rows_per_second:,.0f}"),
        ]
    version = "" if result.model_version is None else f" (version {result.model_version})"
    rows += [
        ("model", f"{result.model_uri}{version}"),
        ("batch id", result.batch_id),
        ("write mode", result.write_mode),
        ("input", _at(result.input_table, result.input_version)),
        ("output", _at(result.output_table, result.output_version)),
        ("quarantine", result.quarantine_table),
    ]
    for name, value in (result.plan or {}).items():
        rows.append((name.replace("_", " "), _shown(value)))
    print_fields(rows, title=_TITLES[result.status])


_TITLES = {
    "scored": "Scored",
    "already_scored": "Already scored: this batch is in the output, nothing was written",
    "no_new_rows": "Nothing new: no rows since the last run, nothing was written",
    "planned": "Dry run: nothing was written",
}


def _at(table: str, version: int | None) -> str:
    return table if version is None else f"{table} at version {version}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {what}" for name, what in value.items())
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
