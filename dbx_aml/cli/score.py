"""`dbx-aml score`: a table in, a table out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from dbx_aml.cli.console import console

if TYPE_CHECKING:
    from dbx_aml.scoring.result import ScoringResult
    from dbx_aml.scoring.spark_progress import Progress


@click.command()
@click.option(
    "--model-uri",
    required=True,
    help="models:/NAME/VERSION, models:/NAME@ALIAS, models:/CATALOG.SCHEMA.NAME@ALIAS, "
    "runs:/ID/PATH, or a path. An alias is resolved once, at the start.",
)
@click.option("--input-table", required=True, help="A table or view, or delta.`/path`.")
@click.option("--output-table", required=True, help="Made if it does not exist.")
@click.option("--tracking-uri", help="MLflow tracking server.  [default: MLflow's]")
@click.option("--registry-uri", help="MLflow model registry.  [default: MLflow's]")
@click.option(
    "--config",
    help="A config.json or its folder: servers and identity as the link says.  [default: none]",
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
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object on stdout.")
def score(config: str | None, as_json: bool, **arguments: Any) -> None:
    """Score a table with a model: good rows into the output, bad ones into the quarantine.

    Exactly once: start it again after a crash, and both tables are as after one clean run.
    """
    # Late: what a command imports is what its start costs.
    from dbx_aml.scoring.score_table import score_table

    with _progress() as progress:
        if config:
            from dbx_aml.tracking.connect import connect

            connect(config=config)
        result = score_table(progress=progress, **arguments)
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        _print_result(result)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show the current step with its tasks; on a terminal as a bar, else a line a step."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if not sys.stderr.isatty():
        said = ""

        def line(step: str, done: int, total: int) -> None:
            nonlocal said
            if step != said:
                said = step
                click.echo(f"{step} ...", err=True)

        yield line
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[tasks]}"),
        TimeElapsedColumn(),
        console=console(),
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=None, tasks="")

        def show(step: str, done: int, total: int) -> None:
            tasks = f"{done} of {total} tasks" if total else ""
            bar.update(task, description=step, completed=done, total=total or None, tasks=tasks)

        yield show


def _print_result(result: ScoringResult) -> None:
    from rich.table import Table

    table = Table(show_header=False, title=_TITLES[result.status], title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
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
    for name, value in rows:
        if value not in (None, ""):
            table.add_row(name, str(value))
    console(stderr=False).print(table)


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
