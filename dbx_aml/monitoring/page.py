"""A page with drift and quality of a table: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbx_aml._common.errors import ArgumentError, MonitoringError
from dbx_aml._common.html import StyledCell, html_table
from dbx_aml._common.redact import redact
from dbx_aml._common.text import install_command, plural
from dbx_aml.monitoring.baseline import ColumnBaseline
from dbx_aml.monitoring.quality import CHALLENGER_ROW, quality_numbers
from dbx_aml.monitoring.quarantine import QUARANTINE_ROW
from dbx_aml.monitoring.thresholds import ERRORS, QUARANTINED, SCORES, find_distance

if TYPE_CHECKING:
    from dbx_aml.monitoring.result import MonitoringResult, ThresholdAlert

# Both colours have a contrast of 3 on white and on the dark background.
_BASELINE_COLOR, _CURRENT_COLOR, _LIMIT_COLOR = "#8a8f98", "#2f81f7", "#d1242f"
# The columns with the largest drift have these; two of more colours would look the same.
_LINE_COLORS = ("#2f81f7", "#bf5700", "#2da44e", "#a475f9", "#c2418f", "#8a7000")
_DISTANCES = {
    "psi": "population stability index",
    "js": "Jensen-Shannon distance",
    "ks": "Kolmogorov-Smirnov statistic",
    "tv": "total variation",
    "l_infinity": "largest change of a share",
    "wasserstein": "Wasserstein distance",
    "normalized_wasserstein": "normalized Wasserstein distance",
}
# Titles of the numbers of the quality, in the order of the page.
_QUALITY = {
    "root_mean_squared_error": "root mean squared error",
    "mean_average_error": "mean absolute error",
    "r2_score": "R2",
    "mean_squared_error": "mean squared error",
    "mean_absolute_percentage_error": "mean absolute percentage error",
    "accuracy_score": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1_score": "F1",
}
_SHOWN_WITH_THRESHOLD = ("mean_squared_error", "mean_absolute_percentage_error")
_ALERT_STYLE = "color: var(--alert); font-weight: 600"
_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2328; --line: #d1d9e0;
  --alert: #d1242f; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --line: #3d444d;
  --alert: #ff7b72; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 1100px; padding: 1rem; }
h1, h2, p { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 0; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
table { border-collapse: collapse; } th, td { border-bottom: 1px solid var(--line);
  padding: .2rem .8rem .2rem 0; vertical-align: top; }
td:first-child { min-width: 8rem; overflow-wrap: anywhere; }
.wide { margin: 1rem 0; overflow-x: auto; } .plot { overflow: hidden; min-height: 360px; }
summary { cursor: pointer; padding: .5rem 0; }
"""
# The plots take their colours from the page, also when the reader changes between light and dark.
# A plot is drawn when the reader comes near it, so that a page of many columns opens quickly.
_SCRIPT = """
const isDrawn = (plot) => plot.classList.contains("js-plotly-plot");
const paint = (plot) => {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue("--text"), line = style.getPropertyValue("--line");
  Plotly.relayout(plot, {"font.color": text, "xaxis.gridcolor": line, "yaxis.gridcolor": line,
    "xaxis.linecolor": line, "yaxis.zerolinecolor": line});
};
const draw = (plot) => {
  if (isDrawn(plot)) return;
  const figure = JSON.parse(plot.querySelector("script").textContent);
  const config = {responsive: true, displaylogo: false, displayModeBar: false};
  Plotly.newPlot(plot, figure.data, figure.layout, config).then(paint);
};
const plots = [...document.querySelectorAll(".plot")];
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, {rootMargin: "400px"});
const size = new ResizeObserver((entries) => {
  for (const entry of entries) if (isDrawn(entry.target)) Plotly.Plots.resize(entry.target);
});
for (const plot of plots) { near.observe(plot); size.observe(plot); }
addEventListener("beforeprint", () => plots.forEach(draw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change",
  () => plots.filter(isDrawn).forEach(paint));
"""


def check_page(path: Path) -> None:
    """Raise an error for a page that cannot be written, before the windows count as computed.

    Args:
        path: File of the page; its folder is made.

    Raises:
        ArgumentError: The folder cannot be made, or the path is a folder.
        MonitoringError: The package plotly is not installed.
    """
    try:
        import plotly  # noqa: F401
    except ImportError as err:
        raise MonitoringError(
            "page must find the package 'plotly': not installed; install it with: "
            f"{install_command('monitor')}"
        ) from err
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_folder = path.is_dir()
    except OSError as err:
        raise ArgumentError(
            f"page must be a file in a folder that can be made: got {str(path)!r}; {err.strerror}"
        ) from err
    if is_folder:
        raise ArgumentError(f"page must be a file: got the folder {str(path)!r}; add a name")


def render_page(
    result: MonitoringResult,
    baselines: Mapping[str, ColumnBaseline],
    profiles: Sequence[Mapping[str, Any]],
    drift_rows: Sequence[Mapping[str, Any]],
    table_rows: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
) -> str:
    """Return the page as HTML.

    Args:
        result: Result of the run.
        baselines: Baseline of each column.
        profiles: Rows of the profile table for the newest window.
        drift_rows: Rows of the drift table against the baseline, of all windows.
        table_rows: Rows of the profile table about all columns and about the quarantine, of all
            windows, oldest first.
        thresholds: Thresholds of the run.
    """
    from plotly.offline import get_plotlyjs

    title = f"Drift of {redact(result.output_table)}"
    numbers = {row["column_name"]: row for row in profiles}
    histories = [
        _history_section(name, drift_rows, thresholds.get(name))
        for name in _DISTANCES
        if name in thresholds or (name == "psi" and not set(_DISTANCES) & set(thresholds))
    ]
    histories += _quality_sections(table_rows, thresholds)
    histories += _quarantine_sections(table_rows, thresholds.get(QUARANTINED))
    sections = [
        _column_section(row, baselines[row["column_name"]], numbers[row["column_name"]])
        for row in result.drift
        if row["column_name"] in numbers
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<div class="wide" tabindex="0">{_summary(result)}</div>
<div class="wide" tabindex="0">{_overview(result)}</div>
{"".join(histories)}
{"".join(sections)}
</main>
<script>{get_plotlyjs()}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _summary(result: MonitoringResult) -> str:
    window = result.newest_window
    rows = [
        ("newest window", f"{window:%Y-%m-%d %H:%M:%S %Z}" if window else "none"),
        ("rows", f"{result.rows:,}"),
        ("baseline", result.baseline),
        ("columns without baseline", ", ".join(result.columns_without_baseline) or "none"),
        ("quarantined %", _number_text(result.percent_quarantined)),
        *((_QUALITY[name], _number_text(value)) for name, value in result.quality.items()),
        *(
            (f"{_QUALITY[name]} of the challenger", _number_text(value))
            for name, value in result.challenger_quality.items()
        ),
        ("beyond a threshold", _alerts_text(result.alerts)),
    ]
    return html_table(rows)


def _alerts_text(alerts: Sequence[ThresholdAlert]) -> str:
    """Return the alerts that are about no column, and the number of the others."""
    texts = [
        f"{alert.threshold} {_number_text(alert.value)} (limit {alert.limit:g})"
        for alert in alerts
        if alert.column_name.startswith(":")
    ]
    distances = len(alerts) - len(texts)
    if distances:
        texts.insert(0, plural(distances, "distance"))
    return ", ".join(texts) or "none"


def _overview(result: MonitoringResult) -> str:
    rows = [
        (
            row["column_name"],
            StyledCell(row["dbx_aml_status"], _ALERT_STYLE)
            if row["dbx_aml_status"] == "drift"
            else row["dbx_aml_status"],
            _number_text(row["population_stability_index"]),
            _number_text(row["js_distance"]),
            _number_text(row["avg_delta"]),
        )
        for row in result.drift
    ]
    return html_table(rows, ["column", "status", "PSI", "JS distance", "change of the mean"])


def _history_section(
    threshold: str, drift_rows: Sequence[Mapping[str, Any]], limit: float | None
) -> str:
    """Return a distance of each column over time, as plot and table."""
    lines: dict[str, list[tuple[str, float]]] = {}
    for row in sorted(drift_rows, key=lambda row: row["dbx_aml_window"]):
        value = find_distance(row, threshold)
        if value is not None:
            lines.setdefault(row["column_name"], []).append((_window_text(row), value))
    # The newest window decides the order, as in the list of the columns.
    columns = sorted(lines, key=lambda column: -lines[column][-1][1])
    figure = _line_figure({column: lines[column] for column in columns}, limit)
    title = _DISTANCES[threshold]
    text = f"{title[0].upper()}{title[1:]} of each column against the baseline"
    if len(columns) > len(_LINE_COLORS):
        text += f"; the {len(_LINE_COLORS)} columns with the largest drift have a colour"
    text += _limit_text(limit)
    figure.update_layout(yaxis_title=title, yaxis_rangemode="tozero")
    cells = [(time, column, f"{value:.4g}") for column in columns for time, value in lines[column]]
    table = html_table(cells, ["window", "column", title])
    return _section(f"Drift over time: {title}", f"{text}.", figure, table)


def _quality_sections(
    rows: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float]
) -> list[str]:
    """Return a section for each number of the quality: its values over time."""
    limits = {metric: thresholds.get(name) for name, metric in {**ERRORS, **SCORES}.items()}
    sections = []
    for metric, title in _QUALITY.items():
        points = [(row, quality_numbers(row).get(metric)) for row in rows]
        found = [(row, value) for row, value in points if value is not None]
        if not found or (metric in _SHOWN_WITH_THRESHOLD and limits[metric] is None):
            continue
        lines: dict[str, list[tuple[str, float]]] = {}
        for row, value in found:
            lines.setdefault(_predictor(row), []).append((_window_text(row), value))
        figure = _line_figure(lines, limits[metric])
        figure.update_layout(yaxis_title=title)
        cells = [
            (_window_text(row), _predictor(row), f"{value:.4g}", f"{row['dbx_aml_labeled_rows']:,}")
            for row, value in found
        ]
        table = html_table(cells, ["window", "predictions", title, "rows with a label"])
        text = f"{title[0].upper()}{title[1:]} of the predictions with a label"
        text += f"{_limit_text(limits[metric])}."
        sections.append(_section(f"Quality over time: {title}", text, figure, table))
    return sections


def _predictor(row: Mapping[str, Any]) -> str:
    return "challenger" if row["column_name"] == CHALLENGER_ROW else "model"


def _quarantine_sections(rows: Sequence[Mapping[str, Any]], limit: float | None) -> list[str]:
    """Return a section with the share of the quarantined rows over time, and their reasons."""
    found = {row["dbx_aml_window"]: row for row in rows if row["column_name"] == QUARANTINE_ROW}
    if not found:
        return []
    # A window without quarantined rows has no such row.
    shares = [
        (
            _window_text(row),
            found.get(row["dbx_aml_window"], {}).get("dbx_aml_percent_quarantined") or 0.0,
        )
        for row in rows
        if row["column_name"] not in (QUARANTINE_ROW, CHALLENGER_ROW)
    ]
    figure = _line_figure({"quarantined": shares}, limit)
    figure.update_layout(yaxis_title="% of the rows", yaxis_rangemode="tozero")
    cells = [
        (_window_text(row), item["item"], f"{item['count']:,}")
        for row in reversed(found.values())
        for item in row["frequent_items"] or []
    ]
    table = html_table(cells, ["window", "reason", "rows"])
    text = f"Share of the rows that were not scored{_limit_text(limit)}. The table has the reasons."
    return [_section("Quarantined rows over time", text, figure, table)]


def _line_figure(lines: Mapping[str, Sequence[tuple[str, float]]], limit: float | None) -> Any:
    """Return a figure with a line for each name, and a dashed line at a threshold."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, points) in enumerate(lines.items()):
        times, values = zip(*points, strict=True)
        is_coloured = number < len(_LINE_COLORS)
        figure.add_scatter(
            x=times,
            y=values,
            name=escape(redact(name)),
            mode="lines+markers",
            line_color=_LINE_COLORS[number] if is_coloured else _BASELINE_COLOR,
            line_width=2 if is_coloured else 1,
            showlegend=is_coloured and len(lines) > 1,
        )
    if limit is not None:
        figure.add_hline(y=limit, line_color=_LIMIT_COLOR, line_dash="dash")
    return figure


def _limit_text(limit: float | None) -> str:
    return "" if limit is None else f"; the dashed line is the threshold {limit:g}"


def _window_text(row: Mapping[str, Any]) -> str:
    return f"{row['window']['start']:%Y-%m-%d %H:%M:%S}"


def _column_section(
    row: Mapping[str, Any], baseline: ColumnBaseline, profile: Mapping[str, Any]
) -> str:
    """Return the shares of a column's bins in the baseline and in the newest window."""
    import plotly.graph_objects as go

    counts = [baseline.profile["dbx_aml_bin_counts"], profile["dbx_aml_bin_counts"]]
    shares = [[100 * count / (sum(column) or 1) for count in column] for column in counts]
    labels = baseline.bins.labels if counts[0] else []
    # Equal labels would be one bar: plotly adds the bars of one label.
    labels = [
        label if labels.count(label) == 1 else f"{label} ({position})"
        for position, label in enumerate(labels, 1)
    ]
    figure = go.Figure()
    for name, values, color in zip(
        ("baseline", "newest window"), shares, (_BASELINE_COLOR, _CURRENT_COLOR), strict=True
    ):
        # Plotly reads tags in a text.
        texts = [escape(redact(label)) for label in labels]
        figure.add_bar(x=texts, y=values, name=name, marker_color=color)
    figure.update_layout(yaxis_title="% of the rows", xaxis_type="category")
    cells = [
        (label, f"{before:.2f}", f"{now:.2f}")
        for label, before, now in zip(labels, *shares, strict=True)
    ]
    text = f"Status: {row['dbx_aml_status']}. PSI {_number_text(row['population_stability_index'])}"
    return _section(
        row["column_name"],
        f"{text}. Share of each bin in the baseline and in the newest window.",
        figure,
        html_table(cells, ["values", "baseline %", "newest window %"]),
    )


def _section(title: str, description: str, figure: Any, table: str) -> str:
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 50, "r": 10, "t": 10, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        height=360,
    )
    figure.update_xaxes(automargin=True)
    # No text of a figure can end its script.
    plot = figure.to_json().replace("<", "\\u003c")
    name = escape(redact(title))
    text = escape(redact(description))
    return f"""<section>
<h2>{name}</h2>
<p>{text}</p>
<div class="plot" role="img" aria-label="{escape(f"Plot of {redact(title)}")}: {text}"
><script type="application/json">{plot}</script></div>
<details><summary>Table: {name}</summary><div class="wide" tabindex="0">{table}</div></details>
</section>
"""


def _number_text(value: float | None) -> str:
    return "none" if value is None else f"{value:,.4g}"
