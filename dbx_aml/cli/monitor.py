"""`dbx-aml monitor`: drift and quality of a scored table or of an endpoint."""

from __future__ import annotations

from typing import Any

import click

from dbx_aml._common.text import plural
from dbx_aml.cli.options import json_option
from dbx_aml.cli.progress import show_progress
from dbx_aml.cli.tables import Column, print_fields, print_json, print_line, print_table
from dbx_aml.monitoring.result import WINDOW_KINDS, MonitoringResult, ThresholdAlert
from dbx_aml.monitoring.thresholds import THRESHOLDS

_ALERTS_SHOWN = 5


@click.command()
@click.argument("output_table")
@click.option(
    "--baseline",
    help="Table of the training rows, or runs:/ID of a run.  [default: the kept baseline, else the "
    "first window]",
)
@click.option(
    "--baseline-version",
    type=int,
    help="Delta version of the baseline table.  [default: the newest at the first run]",
)
@click.option(
    "--by",
    type=click.Choice(WINDOW_KINDS),
    default="batch",
    show_default=True,
    help="Windows that are compared with the baseline.",
)
@click.option(
    "--time-column", help="Column of times, for --by day.  [default: the time of the batch]"
)
@click.option(
    "--collected-folder",
    help="Folder of an endpoint's data collector, to monitor in the place of OUTPUT_TABLE.",
)
@click.option("--label", help="Column of the labels.  [default: no labels]")
@click.option("--label-table", help="Table of the labels.  [default: OUTPUT_TABLE]")
@click.option("--key", help="Column of both tables that identifies a row.")
@click.option(
    "--problem-type",
    type=click.Choice(("classification", "regression")),
    help="Kind of the labels.  [default: classification for text and boolean labels]",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Largest distance (psi=0.2) or error (rmse=20), smallest score (r2=0.5); exit 1 beyond "
    f"it. Names: {', '.join(THRESHOLDS)}.",
)
@click.option("--page", help="HTML file to write, with plots of each column.  [default: none]")
@json_option
def monitor(as_json: bool, thresholds: tuple[str, ...], **arguments: Any) -> None:
    """Compare a scored table with a baseline.

    Each batch of OUTPUT_TABLE, or each day, is a window. A window is computed once, and again only
    if its rows changed. The numbers are in the tables <output>_profile_metrics and
    <output>_drift_metrics. With --collected-folder OUTPUT_TABLE only gives their names.
    """
    limits = dict(_parse_threshold(text) for text in thresholds if text)
    # Imported here, so that the other commands start quickly.
    from dbx_aml.monitoring.monitor_table import monitor_table

    with show_progress("Starting") as progress:
        # A job passes an empty text for an option that it leaves to its default.
        values: dict[str, Any] = {
            name: None if value == "" else value for name, value in arguments.items()
        }
        result = monitor_table(thresholds=limits, progress=progress, **values)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result)
    if result.alerts:
        print_line(
            f"dbx-aml: numbers must be within their thresholds: got {_alerts_text(result.alerts)}; "
            f"look at {result.drift_table} and {result.profile_table}",
            is_error=True,
        )
        raise click.exceptions.Exit(1)


def _alerts_text(alerts: list[ThresholdAlert]) -> str:
    texts = [
        f"{alert.threshold} {alert.value:.4g}"
        + ("" if alert.column_name.startswith(":") else f" of {alert.column_name}")
        + f" (limit {alert.limit:g})"
        for alert in alerts[:_ALERTS_SHOWN]
    ]
    more = len(alerts) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")


def _parse_threshold(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a name and a number, for example psi=0.2",
            param_hint="'--threshold'",
        ) from None


def _print_result(result: MonitoringResult) -> None:
    window = result.newest_window
    fields = [
        ("newest window", f"{window:%Y-%m-%d %H:%M:%S %Z}" if window else None),
        ("rows", result.rows),
        ("windows", f"{result.windows:,}, {plural(result.windows_computed, 'window')} computed"),
        ("baseline", result.baseline),
        ("without baseline", ", ".join(result.columns_without_baseline)),
        ("quarantined %", _number_text(result.percent_quarantined)),
        *((name, _number_text(value)) for name, value in result.quality.items()),
        *(
            (f"challenger: {name}", _number_text(value))
            for name, value in result.challenger_quality.items()
        ),
        ("profile", result.profile_table),
        ("drift", result.drift_table),
        ("MLflow run", result.run_id),
        ("seconds", result.seconds),
    ]
    print_fields(fields, title=f"Monitored {result.output_table}")
    if not result.drift:
        return
    print_line("")
    columns = [
        Column("column"),
        Column("status"),
        Column("psi", is_number=True),
        Column("js", is_number=True),
        Column("mean moved by", is_number=True, is_optional=True),
        Column("null moved by %", is_number=True, is_optional=True),
    ]
    cells = [
        (
            row["column_name"],
            row["dbx_aml_status"],
            _number_text(row["population_stability_index"]),
            _number_text(row["js_distance"]),
            _number_text(row["avg_delta"]),
            _number_text(row["percent_null_delta"]),
        )
        for row in result.drift
    ]
    print_table(columns, cells)


def _number_text(value: float | None) -> str | None:
    return None if value is None else f"{value:,.4g}"
