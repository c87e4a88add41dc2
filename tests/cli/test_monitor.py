"""`dbx-aml monitor`: its options, its output, its exit codes."""

import inspect
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from dbx_aml import MonitoringResult, monitor_table
from dbx_aml._common.errors import MonitoringError
from dbx_aml.cli.main import main
from dbx_aml.cli.monitor import monitor
from dbx_aml.monitoring.result import ThresholdAlert
from dbx_aml.monitoring.thresholds import THRESHOLDS
from dbx_aml.monitoring.windows import WINDOW_KINDS

START = datetime(2024, 5, 1, tzinfo=UTC)
DRIFT = {
    "column_name": "dep_delay",
    "dbx_aml_status": "drift",
    "population_stability_index": 0.31234,
    "js_distance": 0.2,
    "avg_delta": 1234.5,
    "percent_null_delta": None,
}
RESULT = MonitoringResult(
    output_table="flights_scored",
    baseline="flights_train at version 3",
    windows=3,
    windows_computed=1,
    newest_window=START,
    rows=27_110,
    drift=[DRIFT],
    alerts=[],
    columns_without_baseline=["prediction"],
    profile_table="flights_scored_profile_metrics",
    drift_table="flights_scored_drift_metrics",
    baseline_table="flights_scored_monitor_baseline",
    seconds=2.5,
)
ALERT = ThresholdAlert(
    window_start=START, column_name="dep_delay", threshold="psi", value=0.31, limit=0.2
)


@pytest.fixture
def monitoring(monkeypatch):
    """Replace `monitor_table` by a function that records its calls."""

    class Monitoring:
        def __init__(self):
            self.result_or_error = RESULT
            self.calls = []

        def monitor_table(self, progress, **arguments):
            self.calls.append(arguments)
            if isinstance(self.result_or_error, Exception):
                raise self.result_or_error
            return self.result_or_error

    monitoring = Monitoring()
    monkeypatch.setattr(
        sys.modules[monitor_table.__module__], "monitor_table", monitoring.monitor_table
    )
    return monitoring


def run(*options):
    return CliRunner().invoke(main, ["monitor", "flights_scored", *options])


def test_the_options_are_the_arguments_of_monitor_table():
    options = {option.name: option for option in monitor.params}
    assert set(options) - {"as_json"} == (
        set(inspect.signature(monitor_table).parameters) - {"spark", "progress"}
    )
    assert tuple(options["by"].type.choices) == WINDOW_KINDS
    assert all(name in options["thresholds"].help for name in THRESHOLDS)


def test_options_reach_monitor_table_as_its_arguments(monitoring):
    options = ["--baseline", "train", "--baseline-version", "3", "--by", "day"]
    options += ["--time-column", "time_hour", "--threshold", "psi=0.2", "--threshold", "ks=0.1"]
    options += ["--page", "drift.html", "--label", "delay", "--label-table", "facts"]
    options += ["--key", "id", "--problem-type", "regression", "--collected-folder", "/inputs"]
    assert run(*options).exit_code == 0
    assert monitoring.calls == [
        {
            "output_table": "flights_scored",
            "baseline": "train",
            "baseline_version": 3,
            "by": "day",
            "time_column": "time_hour",
            "collected_folder": "/inputs",
            "label": "delay",
            "label_table": "facts",
            "key": "id",
            "problem_type": "regression",
            "thresholds": {"psi": 0.2, "ks": 0.1},
            "page": "drift.html",
        }
    ]


def test_an_empty_option_has_its_default_and_0_is_a_version(monitoring):
    assert run("--baseline-version", "0", "--label=", "--threshold=").exit_code == 0
    (arguments,) = monitoring.calls
    assert (arguments["baseline_version"], arguments["label"]) == (0, None)
    assert arguments["thresholds"] == {}


def test_the_table_has_every_number(monitoring):
    finished = run()
    assert finished.exit_code == 0
    for text in (
        "2024-05-01 00:00:00 UTC", "27,110", "3, 1 window computed", "flights_train at version 3",
        "prediction", "flights_scored_profile_metrics", "flights_scored_drift_metrics",
        "dep_delay", "drift", "0.3123", "1,234",
    ):  # fmt: skip
        assert text in finished.stdout


def test_the_result_is_plain_data():
    drift = [{**DRIFT, "window": {"start": START, "end": START}}]
    data = json.loads(json.dumps(replace(RESULT, drift=drift, alerts=[ALERT]).to_dict()))
    time = "2024-05-01T00:00:00+00:00"
    assert (data["newest_window"], data["alerts"][0]["window_start"]) == (time, time)
    assert data["drift"][0]["window"] == {"start": time, "end": time}


def test_the_result_is_one_json_object(monitoring):
    result = json.loads(run("--json").stdout)
    assert result["newest_window"] == "2024-05-01T00:00:00+00:00"
    assert result["drift"] == [DRIFT]


def test_numbers_beyond_their_thresholds_are_exit_1_and_one_line_on_stderr(monitoring):
    quality = replace(ALERT, column_name=":table", threshold="r2", value=0.31, limit=0.5)
    monitoring.result_or_error = replace(RESULT, alerts=[ALERT, quality, *[ALERT] * 5])
    finished = run("--threshold", "psi=0.2", "--json")
    assert finished.exit_code == 1
    one = "psi 0.31 of dep_delay (limit 0.2)"
    assert finished.stderr == (
        f"dbx-aml: numbers must be within their thresholds: got {one}, r2 0.31 (limit 0.5), {one}, "
        f"{one}, {one} and 2 more; look at flights_scored_drift_metrics and "
        "flights_scored_profile_metrics\n"
    )
    assert json.loads(finished.stdout)["alerts"][1]["threshold"] == "r2"


def test_a_threshold_without_a_number_is_wrong_usage(monitoring):
    finished = run("--threshold", "psi")
    assert finished.exit_code == 2
    assert "'psi' is not a name and a number, for example psi=0.2" in finished.stderr
    assert monitoring.calls == []


def test_an_error_is_one_line_and_exit_1(monitoring):
    monitoring.result_or_error = MonitoringError("baseline must have rows: got none")
    finished = run()
    assert (finished.exit_code, finished.stdout) == (1, "")
    assert finished.stderr == "dbx-aml: baseline must have rows: got none\n"


def test_version_0_of_the_baseline_is_a_version_and_an_empty_option_is_none(monitoring):
    assert run("--baseline", "train", "--baseline-version", "0", "--label=").exit_code == 0
    (call,) = monitoring.calls
    assert (call["baseline_version"], call["label"]) == (0, None)
