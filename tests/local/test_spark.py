"""The local Spark session: tables that outlive it, two jobs at once, one session a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local import jars
from dbx_aml.local import spark as local_session
from dbx_aml.local.delta_folder import register_tables

QUICK = {
    "spark.driver.extraJavaOptions": local_session.SHORT_JOB_JAVA_OPTIONS,
    "spark.driver.memory": "1g",
}


def start_job(code: str, root: Path, **arguments: Any) -> subprocess.Popen[str]:
    """Start a Python process that runs `code` with a local session `spark` on `root`."""
    arguments = {"master": "local[2]", "conf": QUICK, **arguments}
    lines = [
        "import json, os, sys",
        "from dbx_aml import local_spark",
        f"spark = local_spark({str(root)!r}, **{arguments!r})",
        code,
        "spark.stop()",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed_json(job: subprocess.Popen[str]) -> Any:
    """Return the JSON that a job printed; the job must not have printed anything else."""
    out, err = job.communicate(timeout=200)
    assert err == ""
    assert job.returncode == 0
    return json.loads(out)


@pytest.mark.spark
@pytest.mark.slow
def test_tables_of_two_connect_jobs_at_once_are_known_by_name_in_another_session(
    tmp_path: Path, spark: Any
) -> None:
    root = tmp_path / "with space's"
    write = """
from pyspark.sql import functions as F
@F.pandas_udf("string")
def python(ids):
    import sys
    return ids.map(lambda _: sys.executable)
spark.sql("CREATE SCHEMA IF NOT EXISTS nightly")
spark.range({n}).select("id", python("id").alias("python")).write.saveAsTable("{name}")
zone = spark.sql("SELECT current_timezone()").first()[0]
print(json.dumps([type(spark).__module__, spark.table("{name}").count(), zone]))
"""
    first = start_job(write.format(n=3, name="job_one"), root, connect=True)
    second = start_job(
        write.format(n=4, name="nightly.job_two"), root, connect=True, master="local[1]"
    )
    assert printed_json(first) == ["pyspark.sql.connect.session", 3, "UTC"]
    assert printed_json(second) == ["pyspark.sql.connect.session", 4, "UTC"]
    assert "WARN" in (root / "spark.log").read_text()

    (root / "warehouse" / "empty" / "_delta_log").mkdir(parents=True)  # killed before its commit
    assert register_tables(spark, root) == ["default.job_one", "nightly.job_two"]
    assert {row.python for row in spark.table("job_one").collect()} == {sys.executable}
    spark.table("job_one").write.mode("append").saveAsTable("job_one")
    assert spark.table("job_one").count() == 6
    for name in ("job_one", "nightly.job_two"):
        spark.sql(f"DROP TABLE {name}")
    assert not (root / "warehouse" / "job_one").exists()
    assert not (root / "warehouse" / "nightly.db" / "job_two").exists()


@pytest.mark.spark
def test_a_second_call_returns_the_active_session(spark: Any, dbx_aml_local_root: Path) -> None:
    assert local_session.local_spark(dbx_aml_local_root) is spark
    assert local_session.current_spark() is spark


@pytest.mark.spark
def test_a_vacuum_of_a_small_table_has_a_task_for_each_core(
    spark: Any, spark_database: str
) -> None:
    table = f"{spark_database}.numbers"
    spark.range(10).write.format("delta").saveAsTable(table)
    context, tracker = spark.sparkContext, spark.sparkContext.statusTracker()
    context.setJobGroup("vacuum", "")
    try:
        spark.sql(f"VACUUM {table}").collect()
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup("vacuum")]
    stages = [tracker.getStageInfo(stage) for job in jobs for stage in job.stageIds]
    assert max(stage.numTasks for stage in stages) <= max(4, os.cpu_count() or 2)


@pytest.mark.spark
def test_another_folder_is_refused_while_a_session_is_active(
    spark: Any, dbx_aml_local_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(LocalSparkError) as caught:
        local_session.local_spark(tmp_path)
    message = str(caught.value)
    assert f"got {tmp_path} while {dbx_aml_local_root} is in use; call spark.stop()" in message


@pytest.mark.spark
def test_on_databricks_the_session_is_the_cluster_s_and_no_local_session_starts(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a local session was started on a cluster")

    monkeypatch.setattr(local_session, "active_session", lambda: None)
    monkeypatch.setattr(local_session, "local_spark", fail)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    assert local_session.current_spark() is spark


@pytest.mark.parametrize(
    ("remote", "arguments"),
    [
        ("", {"master": "local[*]", "connect": False, "kafka": False}),
        ("local[2]", {"master": "local[2]", "connect": True, "kafka": False}),
    ],
)
def test_without_an_active_session_a_local_session_starts(
    remote: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_session, "active_session", lambda: None)
    monkeypatch.setattr(local_session, "local_spark", lambda **arguments: arguments)
    monkeypatch.setenv("SPARK_REMOTE", remote)
    assert local_session.current_spark() == arguments


def test_the_local_root_is_the_argument_then_the_variable_then_a_folder_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBX_AML_LOCAL_ROOT", "/from/variable")
    assert local_session.local_root("/from/argument") == Path("/from/argument")
    assert local_session.local_root() == Path("/from/variable")
    monkeypatch.delenv("DBX_AML_LOCAL_ROOT")
    assert local_session.local_root() == tmp_path / ".dbx_aml"
    assert local_session.local_mlflow_uri() == f"sqlite:///{tmp_path}/.dbx_aml/mlflow.db"
    assert local_session.local_artifact_uri("/a b") == "file:///a%20b/artifacts"


def test_without_pyspark_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    monkeypatch.setattr(jars, "find_spec", lambda _: None)
    with pytest.raises(
        LocalSparkError, match=r"pyspark: got none; run: pip install '\./dist/dbx_aml-.*\[local\]'"
    ):
        local_session.current_spark()
