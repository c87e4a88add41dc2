"""The plugin in new pytest runs: imports, the header with the owner of `spark`, and errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dbx_aml.local.jars import cache_folder

LIBRARIES = ("chispa", "IPython", "mlflow", "numpy", "pandas", "pyspark")
FAKE_SPARK = "import pytest\n\n@pytest.fixture\ndef spark():\n    return {owner!r}\n"


@pytest.fixture(autouse=True)
def _same_cache(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta's jars and the empty MLflow database come from this machine's cache, not a new home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))


# Before pytester changes the home folder.
CACHE = cache_folder().parent


def header_line(result: pytest.RunResult) -> str:
    (line,) = [line for line in result.outlines if line.startswith("dbx-aml:")]
    return line


def test_a_run_that_asks_for_no_fixture_loads_no_library(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        f"    print('loaded', sorted(set({LIBRARIES}) & set(sys.modules)),\n"
        "          config.pluginmanager.has_plugin('dbx_aml'))\n"
    )
    pytester.makepyfile("def test_nothing(): pass")

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded [[]] True"])
    assert header_line(result) == (
        "dbx-aml: the fixture spark is the one of dbx_aml (local, Delta, UTC)"
    )


def test_without_the_plugin_its_fixtures_and_its_line_are_missing(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_rows(spark): pass")

    result = pytester.runpytest_subprocess("-p", "no:dbx_aml")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'spark' not found"])
    result.stdout.no_fnmatch_line("dbx-aml:*")


@pytest.mark.parametrize(
    ("conftest", "owner"),
    [
        (FAKE_SPARK.format(owner="conftest"), "conftest"),
        ("pytest_plugins = ['other']", "other"),
        ("pytest_plugins = ['other']\n" + FAKE_SPARK.format(owner="conftest"), "conftest"),
    ],
)
def test_the_header_names_the_owner_of_the_spark_that_the_tests_get(
    pytester: pytest.Pytester, conftest: str, owner: str
) -> None:
    pytester.makepyfile(other=FAKE_SPARK.format(owner="other"))
    pytester.makeconftest(conftest)
    pytester.makepyfile(f"def test_owner(spark): assert spark == {owner!r}")
    pytester.syspathinsert()

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(passed=1)
    assert re.fullmatch(
        rf"dbx-aml: the fixture spark is the one of \S*{owner}\S*", header_line(result)
    )


def test_without_java_one_test_has_the_command_to_install_it_and_the_others_are_skipped(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    pytester.makeconftest("from dbx_aml.local import java\njava._JAVA_FOLDERS = ()\n")
    pytester.makepyfile(
        "def test_first(spark): pass\n"
        "def test_second(spark_database): pass\n"
        "def test_third(run_notebook): run_notebook('n.py')\n"
        "def test_without_spark(): pass\n"
    )

    result = pytester.runpytest_subprocess("-rs")

    result.assert_outcomes(errors=1, skipped=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "Java for local Spark must be release 17 to 23: got none; run 'sudo apt-get install "
            "openjdk-17-jre-headless' or set JAVA_HOME",
            "SKIPPED*Spark did not start; the error of the first test has the reason",
        ]
    )


def test_a_run_of_another_server_that_a_test_leaves_active_changes_nothing_for_the_next_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pytester.makepyfile(
        """
        import os, shutil, mlflow

        def test_first(mlflow_store, tmp_path):
            shutil.copy(tmp_path / "mlflow.db", tmp_path / "other.db")
            mlflow.start_run()
            mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")

        def test_second():
            assert mlflow.active_run() is None
            assert "MLFLOW_TRACKING_URI" not in os.environ
        """
    )

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*a test must end its runs: got *"])


def test_a_setting_without_a_value_fails_the_test_with_one_line(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ndbx_aml_spark_conf = spark.driver.memory")
    pytester.makepyfile("def test_rows(spark): pass")

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["dbx_aml_spark_conf must have lines NAME=VALUE: got 'spark.driver.memory'"]
    )


LEFT_ACTIVE = """
import mlflow

def test_first(spark, spark_database, mlflow_store, tmp_path, dbx_aml_local_root):
    (spark.readStream.format("rate").load().writeStream.format("memory").queryName("rates")
        .option("checkpointLocation", str(tmp_path)).start())
    mlflow.start_run()
    spark.range({rows}).write.saveAsTable("default.flights")

def test_second(spark, mlflow_store, dbx_aml_local_root):
    assert spark.streams.active == []
    assert mlflow.active_run() is None
    assert spark.table("flights").count() == {rows}
    assert spark.conf.get("spark.sql.shuffle.partitions") == "3"
    time = spark.sql("SELECT TIMESTAMP '2026-01-02 03:04:05Z'").first()[0]
    print("root", dbx_aml_local_root, time)

def test_third(spark):
    spark.stop()

def test_fourth(spark_database):
    pass
"""


@pytest.mark.slow
@pytest.mark.spark
def test_workers_share_nothing_and_what_a_test_leaves_active_or_stops_is_named(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    pytester.makeini("[pytest]\ndbx_aml_spark_conf = spark.sql.shuffle.partitions = 3")
    pytester.makepyfile(test_a=LEFT_ACTIVE.format(rows=3), test_b=LEFT_ACTIVE.format(rows=5))

    result = pytester.runpytest_subprocess("-n", "2", "--dist", "loadfile", "-rPs")

    result.assert_outcomes(passed=4, failed=2, skipped=2, warnings=4)
    result.stdout.fnmatch_lines(
        [
            "a test must not stop the session of all tests: got a stopped one; *",
            "SKIPPED*: test_third has stopped Spark",
        ]
    )
    roots = {line for line in result.outlines if line.startswith("root ")}
    assert len(roots) == 2
    assert all(root.endswith("/local0 2026-01-02 03:04:05") for root in roots)
    for module in ("test_a", "test_b"):
        result.stdout.re_match_lines_random(
            [
                rf".*{module}\.py:\d+: PytestWarning: a test must stop its streams: "
                "got 'rates', which is stopped",
                rf".*{module}\.py:\d+: PytestWarning: a test must end its runs: "
                "got [0-9a-f]{32}, which was active and is ended",
            ]
        )


def test_the_fixtures_are_listed_with_what_they_give(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures")

    for name in ("mlflow_store", "registered_model", "run_notebook", "score", "spark_database"):
        result.stdout.re_match_lines_random([rf"{name} -- .*{Path('testing/plugin.py')}:\d+"])
