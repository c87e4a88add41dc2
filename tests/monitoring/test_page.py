"""The page of monitoring, from rows of the tables."""

import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dbx_aml._common.errors import ArgumentError, MonitoringError
from dbx_aml.monitoring.baseline import ColumnBaseline
from dbx_aml.monitoring.bins import Bins, MonitoredColumn
from dbx_aml.monitoring.drift import compare_profiles
from dbx_aml.monitoring.page import check_page, render_page
from dbx_aml.monitoring.result import MonitoringResult

START = datetime(2024, 5, 1, tzinfo=UTC)
BINS = {
    "delay": Bins(edges=(-10.0, 0.0, 5.0, 30.0)),
    "<b>carrier": Bins(values=("UA", "<script>alert(1)</script>")),
}
BEFORE = {
    "delay": ([0, 300, 400, 300, 0], [0.0, -1000.0, 1000.0, 4000.0, 0.0]),
    "<b>carrier": ([600, 390, 0, 10], []),
}
NOW = {
    "delay": ([0, 100, 200, 500, 200], [0.0, -300.0, 600.0, 9000.0, 9000.0]),
    "<b>carrier": ([580, 400, 10, 10], []),
}

THRESHOLDS = {"psi": 0.2, "rmse": 20.0, "percent_quarantined": 5.0}
TABLE_ROWS = [
    {
        "dbx_aml_window": day,
        "window": {"start": START + timedelta(days=day)},
        "column_name": ":table",
        "dbx_aml_labeled_rows": 2000,
        "root_mean_squared_error": 18.0 + day,
        "r2_score": 0.5,
        "mean_squared_error": 400.0,
    }
    for day in (0, 1)
]
TABLE_ROWS.insert(
    1,
    {
        **TABLE_ROWS[0],
        "column_name": ":quarantine",
        "root_mean_squared_error": None,
        "r2_score": None,
        "frequent_items": [{"item": "x <b>is null", "count": 40}],
        "dbx_aml_percent_quarantined": 2.0,
    },
)


def numbers(values, name):
    counts, sums = values[name]
    return {"dbx_aml_bin_counts": counts, "dbx_aml_bin_sums": sums, "count": 1000, "stddev": 9.0}


@pytest.fixture(scope="module")
def page():
    baselines = {
        name: ColumnBaseline(
            column=MonitoredColumn(name, "double" if bins.edges else "string"),
            source="train at version 3",
            bins=bins,
            profile=numbers(BEFORE, name),
        )
        for name, bins in BINS.items()
    }
    rows = [
        {
            "column_name": name,
            "dbx_aml_status": "drift" if name == "delay" else "ok",
            "dbx_aml_window": day,
            "window": {"start": START + timedelta(days=day)},
            "population_stability_index": None,
            **compare_profiles(
                baseline.column.kind, baseline.profile, numbers(NOW if day else BEFORE, name)
            ),
        }
        for day in (0, 1)
        for name, baseline in baselines.items()
    ]
    result = MonitoringResult(
        output_table="flights_scored",
        baseline="train at version 3",
        windows=2,
        windows_computed=1,
        newest_window=START + timedelta(days=1),
        rows=1000,
        drift=rows[2:],
        alerts=[],
        columns_without_baseline=["prediction"],
        profile_table="p",
        drift_table="d",
        baseline_table="b",
        seconds=1.0,
    )
    profiles = [{"column_name": name, **numbers(NOW, name)} for name in BINS]
    return render_page(replace(result), baselines, profiles, rows, TABLE_ROWS, THRESHOLDS)


def without_library(page):
    """Return the page without the library of the plots."""
    return re.sub(r"<script>(?:(?!</script>).){100000,}</script>", "", page, flags=re.DOTALL)


def test_the_page_needs_no_network_and_is_below_6_megabytes(page):
    assert len(page.encode()) < 6_000_000
    text = without_library(page)
    assert len(text) < 100_000
    assert not re.search(r'(?:src|href)="', text)


def test_names_and_values_are_text(page):
    text = without_library(page)
    assert "<script>alert" not in text
    assert "<b>carrier" not in text
    assert "&lt;b&gt;carrier" in text


def test_each_plot_has_a_title_a_description_and_a_table(page):
    text = without_library(page)
    titles = [
        "Drift over time: population stability index",
        "Quality over time: root mean squared error",
        "Quality over time: R2",
        "Quarantined rows over time",
        "delay",
        "&lt;b&gt;carrier",
    ]
    assert re.findall("<h2>(.*?)</h2>", text) == titles
    labels = re.findall('role="img" aria-label="Plot of (.*?)"', text)
    assert [label[: len(title) + 2] for label, title in zip(labels, titles, strict=True)] == [
        f"{title}: " for title in titles
    ]
    assert re.findall("<summary>Table: (.*?)</summary>", text) == titles
    cells = re.findall("<td[^>]*>(.*?)</td>", text)
    position = cells.index("above 30")
    assert cells[position : position + 3] == ["above 30", "0.00", "20.00"]
    assert "2024-05-02 00:00:00 UTC" in text


def test_each_threshold_is_a_line_in_a_plot_of_its_distance(page):
    text = without_library(page)
    assert "of each column against the baseline; the dashed line is the threshold 0.2." in text
    assert "predictions with a label; the dashed line is the threshold 20." in text
    assert "were not scored; the dashed line is the threshold 5." in text
    assert text.count('"dash":"dash"') == 3
    assert [float(y) for y in re.findall('"y0":([0-9.]+)', text)] == [0.2, 20, 5]


def test_the_text_comes_before_the_library_of_the_plots(page):
    assert page.index("<h1>") < page.index("</table>") < page.index("plotly.js v")


def test_a_window_without_quarantined_rows_has_a_share_of_0(page):
    figure = without_library(page).split('aria-label="Plot of Quarantined rows over time')[1]
    figure = json.loads(re.search('"application/json">(.*?)</script>', figure)[1])
    assert figure["data"][0]["y"] == [2.0, 0.0]
    cells = re.findall("<td[^>]*>(.*?)</td>", without_library(page))
    position = cells.index("x &lt;b&gt;is null")
    assert cells[position - 1 : position + 2] == ["2024-05-01 00:00:00", cells[position], "40"]


def test_the_mean_squared_error_is_shown_where_it_has_a_threshold(page):
    titles = re.findall("<h2>(.*?)</h2>", without_library(page))
    assert "Quality over time: mean squared error" not in titles
    assert TABLE_ROWS[0]["mean_squared_error"] == 400.0


def test_a_page_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    check_page(tmp_path / "new" / "drift.html")
    assert (tmp_path / "new").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="page must be a file in a folder that can be made"):
        check_page(tmp_path / "file" / "drift.html")
    with pytest.raises(ArgumentError, match="page must be a file: got the folder"):
        check_page(tmp_path)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MonitoringError, match="page must find the package 'plotly'"):
        check_page(tmp_path / "drift.html")
