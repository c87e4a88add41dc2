"""`dbx-aml clean`: list what the toolkit has made, and delete it when told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbx_aml._common.text import plural
from dbx_aml.cli.options import config_option, json_option, load_link
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_json, print_line, print_table, shown_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbx_aml.serving.clean import CleanResult
    from dbx_aml.serving.marked_resources import MarkedResource

_COLUMNS = [
    Column("kind"),
    Column("name"),
    Column("age", is_number=True),
    Column("detail", is_optional=True),
    Column("service", is_optional=True),
]
_PRICE_NOTE = "USD a day: Azure's retail price of the instances, without discounts"
_SOFT_DELETE = (
    "MLflow restores deleted runs and experiments until they are purged; Azure ML keeps archived "
    "environments and code; 'databricks bundle destroy' removes the bundle's jobs and notebooks"
)


@click.command()
@click.option("--only", help="Groups: endpoints,jobs,models,runs,environments,tables.")
@click.option("--older-than", help="Least age, for example 30d, 12h or 2w.")
@click.option("--experiment", help="Runs of this experiment alone.")
@click.option("--schema", "schemas", multiple=True, help="Schema with tables; may be repeated.")
@click.option("--path", "paths", multiple=True, help="Path of a scored table; may be repeated.")
@click.option("--include-used", is_flag=True, help="Delete what is in use as well.")
@click.option("--dry-run", is_flag=True, help="List only.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@json_option
@click.pass_context
def clean(
    ctx: click.Context,
    only: str | None,
    older_than: str | None,
    experiment: str | None,
    schemas: tuple[str, ...],
    paths: tuple[str, ...],
    include_used: bool,
    dry_run: bool,
    yes: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Delete what the toolkit has made.

    Only resources with the mark of dbx-aml are listed and deleted. A second call goes on with what
    the first one has left.
    """
    from dbx_aml.serving.clean import delete_resources, find_marked_resources, parse_age

    with show_progress("Reading the link") as progress:
        plan = find_marked_resources(
            # An empty text is an error: a script whose variable is empty must not delete all.
            only=() if only is None else [name.strip() for name in only.split(",")],
            older_than=None if older_than is None else parse_age(older_than),
            experiment=experiment,
            schemas=schemas,
            paths=paths,
            include_used=include_used,
            link=load_link(config),
            report=progress,
        )
    if not as_json:
        _print_plan(plan.resources, plan.used_resources, plan.problems)
    is_confirmed = yes or (not dry_run and not as_json and _confirm(len(plan.resources)))
    results: list[CleanResult] = []
    if plan.resources and not dry_run and is_confirmed:
        with show_progress("Deleting", "things") as progress:
            results = delete_resources(
                plan.resources,
                lambda count, resource: progress(
                    f"Deleting {resource.kind} {resource.name}", count, len(plan.resources)
                ),
            )
    failed = [result for result in results if result.state == "failed"]
    if as_json:
        print_json(
            {
                "resources": [shown_fields(resource) for resource in plan.resources],
                "used_resources": [shown_fields(resource) for resource in plan.used_resources],
                "problems": plan.problems,
                "results": [
                    {**shown_fields(item.resource), "state": item.state, "error": item.error}
                    for item in results
                ],
            }
        )
    elif results:
        _print_results(results)
    if failed or plan.problems:
        ctx.exit(1)


def _confirm(count: int) -> bool:
    if count == 0:
        return False
    answer = click.prompt(
        f"type {count} to delete {plural(count, 'thing')}", default="", show_default=False
    )
    if answer.strip() == str(count):
        return True
    print_line("nothing was deleted")
    return False


def _print_plan(
    resources: Sequence[MarkedResource],
    used_resources: Sequence[MarkedResource],
    problems: Sequence[str],
) -> None:
    if resources:
        _print_resources(resources, _COLUMNS, [_row(resource) for resource in resources])
    else:
        print_line("nothing that dbx-aml has made is to be deleted")
    if used_resources:
        rows = [(resource.kind, resource.name, resource.usage) for resource in used_resources]
        columns = [Column("kind"), Column("name"), Column("in use")]
        title = "\nIn use, deleted only with --include-used"
        _print_resources(used_resources, columns, rows, title)
    if any(resource.usd_a_day is not None for resource in (*resources, *used_resources)):
        print_line(_PRICE_NOTE)
    for problem in problems:
        print_line(f"dbx-aml: {problem}", is_error=True)


def _print_resources(
    resources: Sequence[MarkedResource],
    columns: Sequence[Column],
    rows: Sequence[tuple[Any, ...]],
    title: str = "",
) -> None:
    """Print a table, with a column for prices if there are any."""
    prices = [resource.usd_a_day for resource in resources]
    if any(price is not None for price in prices):
        columns = [*columns, Column("USD a day", is_number=True)]
        texts = ("" if price is None else f"{price:,.2f}" for price in prices)
        rows = [(*row, text) for row, text in zip(rows, texts, strict=True)]
    print_table(columns, rows, title=title)


def _print_results(results: Sequence[CleanResult]) -> None:
    counts: dict[str, int] = {}
    for result in results:
        counts[result.state] = counts.get(result.state, 0) + 1
    print_line(", ".join(f"{count} {state}" for state, count in counts.items()))
    failed = [result for result in results if result.state == "failed"]
    if failed:
        columns = [Column("kind"), Column("name"), Column("error", is_prose=True)]
        rows = [(item.resource.kind, item.resource.name, item.error) for item in failed]
        print_table(columns, rows, title="\nNot deleted; run the command again")
    print_line(_SOFT_DELETE)


def _row(resource: MarkedResource) -> tuple[Any, ...]:
    age = resource.age
    hours = None if age is None else int(age.total_seconds() // 3600)
    text = "" if hours is None else (f"{hours} h" if hours < 48 else f"{hours // 24} d")
    return resource.kind, resource.name, text, resource.detail, resource.service
