"""The local Spark session: Java, Delta's jars, tables that outlive it, two jobs at once."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local import delta_folder as warehouse
from dbx_aml.local import java as jvm
from dbx_aml.local import spark as local

# Short jobs: the second compiler of the JVM would cost more than it brings.
QUICK = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1", "spark.driver.memory": "1g"}


def job(code: str, root: Path, **start: Any) -> subprocess.Popen[str]:
    """Start a Python process that runs `code` with a local session `spark` on `root`."""
    start = {"master": "local[2]", "conf": QUICK, **start}
    lines = [
        "import json, os, sys",
        "from dbx_aml import local_spark",
        f"spark = local_spark({str(root)!r}, **{start!r})",
        code,
        "spark.stop()",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> Any:
    """Return the JSON that a job printed; it must have printed nothing else."""
    out, err = process.communicate(timeout=200)
    assert err == ""
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.spark
@pytest.mark.slow
def test_tables_of_two_connect_jobs_at_once_are_there_by_name_in_a_third_job(
    tmp_path: Path,
) -> None:
    root = tmp_path / "with space's"
    write = """
from pyspark.sql import functions as F
@F.pandas_udf("long")
def plus(ids):
    return ids + 1
spark.sql("CREATE SCHEMA IF NOT EXISTS nightly")
spark.range({n}).select(plus("id").alias("id")).write.saveAsTable("{name}")
print(json.dumps([type(spark).__module__, spark.table("{name}").count()]))
"""
    first = job(write.format(n=3, name="one"), root, connect=True)
    second = job(write.format(n=4, name="nightly.two"), root, connect=True, master="local[1]")
    assert answer(first) == ["pyspark.sql.connect.session", 3]
    assert answer(second) == ["pyspark.sql.connect.session", 4]

    (root / "warehouse" / "empty" / "_delta_log").mkdir(parents=True)  # killed before its commit
    read = """
from pyspark.sql import functions as F
@F.pandas_udf("string")
def python(ids):
    import sys
    return ids.map(lambda _: sys.executable)
result = {
    "names": sorted(row.tableName for row in spark.sql("SHOW TABLES").collect()),
    "one": sorted(row.id for row in spark.table("one").collect()),
    "two": spark.table("nightly.two").count(),
    "python": spark.range(1).select(python("id")).first()[0],
    "zone": spark.sql("SELECT current_timezone()").first()[0],
}
spark.range(10, 12).write.mode("append").saveAsTable("one")
result["appended"] = spark.table("one").count()
spark.sql("DROP TABLE nightly.two")
print(json.dumps(result))
"""
    assert answer(job(read, root)) == {
        "names": ["one"],
        "one": [1, 2, 3],
        "two": 4,
        "python": sys.executable,
        "zone": "UTC",
        "appended": 5,
    }
    assert not (root / "warehouse" / "nightly.db" / "two").exists()
    assert "WARN" in (root / "spark.log").read_text()


@pytest.mark.spark
def test_a_jvm_dies_with_its_python_process_and_lets_go_of_the_folder(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from dbx_aml.jvm import launch
from dbx_aml.warehouse import hold_folder
root = Path({str(tmp_path)!r})
launch({{}}, root / "spark.log", inherit=[hold_folder(root)])
print("up", flush=True)
time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    started = psutil.Process(process.pid).children(recursive=True)
    java = [child for child in started if child.name() == "java"]
    assert len(java) == 1
    lock = os.open(tmp_path / ".lock", os.O_RDWR)
    java[0].suspend()  # as slow to end as it likes
    process.kill()
    process.communicate()
    assert not warehouse.locked_alone(lock)
    java[0].resume()
    assert psutil.wait_procs(java, timeout=20)[1] == []
    assert warehouse.locked_alone(lock)
    os.close(lock)


@pytest.mark.spark
def test_a_jvm_that_cannot_start_is_one_line_with_its_reason(tmp_path: Path) -> None:
    log = tmp_path / "spark.log"
    with pytest.raises(LocalSparkError) as caught:
        jvm.launch({"spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:+UseParallelGC"}, log)
    assert str(caught.value) == (
        "Java must start for local Spark: got 'Error occurred during initialization of VM: "
        f"Multiple garbage collectors selected'; read {log}"
    )


@pytest.mark.spark
def test_a_second_call_returns_the_session_that_runs(spark: Any, local_folder: Path) -> None:
    assert local.local_spark(local_folder) is spark
    assert local.session() is spark


@pytest.mark.spark
def test_another_folder_is_refused_while_a_session_runs(
    spark: Any, local_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(LocalSparkError) as caught:
        local.local_spark(tmp_path)
    assert str(caught.value) == (
        f"local Spark must be stopped before it starts in another folder: got {tmp_path} while "
        f"{local_folder} is in use; call spark.stop()"
    )


@pytest.mark.spark
def test_on_databricks_the_cluster_s_session_is_used_and_none_is_started(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a local session was started on a cluster")

    monkeypatch.setattr(local, "_active", lambda: None)
    monkeypatch.setattr(local, "local_spark", started)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "18.0")
    assert local.session() is spark


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("", {"master": "local[*]", "connect": False}),
        ("local[2]", {"master": "local[2]", "connect": True}),
    ],
)
def test_without_a_session_a_local_one_is_started(
    remote: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_active", lambda: None)
    monkeypatch.setattr(local, "local_spark", lambda **arguments: arguments)
    monkeypatch.setenv("SPARK_REMOTE", remote)
    assert local.session() == expected


def test_the_folder_is_the_argument_then_the_variable_then_the_current_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBX_AML_LOCAL_ROOT", "/from/variable")
    assert local.local_root("/from/argument") == Path("/from/argument")
    assert local.local_root() == Path("/from/variable")
    monkeypatch.delenv("DBX_AML_LOCAL_ROOT")
    assert local.local_root() == tmp_path / ".dbx_aml"
    assert local.local_mlflow_uri() == f"sqlite:///{tmp_path}/.dbx_aml/mlflow.db"
    assert local.local_artifact_uri("/a b") == "file:///a%20b/artifacts"


def java_home(folder: Path, release: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch()
    (folder / "release").write_text(release)
    return folder


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose Javas are those in the returned folder."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jvm, "_JAVA_FOLDERS", (f"{tmp_path}/jvm/*",))
    return tmp_path / "jvm"


def test_without_java_one_line_says_what_to_install(no_java: Path) -> None:
    with pytest.raises(LocalSparkError) as caught:
        jvm.find_java()
    assert str(caught.value) == (
        "Java for local Spark must be release 17 to 23: got none; "
        "run 'sudo apt-get install openjdk-17-jre-headless' or set JAVA_HOME"
    )


@pytest.mark.parametrize(
    "release",
    ['JAVA_VERSION="1.8.0_402"', 'JAVA_VERSION="25.0.1"'],
)
def test_a_java_that_spark_does_not_start_on_is_named(release: str, no_java: Path) -> None:
    home = java_home(no_java / "other", release)
    with pytest.raises(LocalSparkError, match=rf"got {home}; run 'sudo apt-get "):
        jvm.find_java()


def test_a_java_without_the_vector_module_is_not_taken(no_java: Path) -> None:
    java_home(no_java / "small", 'JAVA_VERSION="17.0.1"\nMODULES="java.base java.sql"')
    with pytest.raises(LocalSparkError, match="got none; run"):
        jvm.find_java()


def test_java_home_comes_first_then_the_path_then_the_oldest_installed(
    no_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jvm, "_JAVA_FOLDERS", (f"{no_java}/a*", f"{no_java}/b*"))
    java_home(no_java / "a", 'JAVA_VERSION="21.0.2"')
    oldest = java_home(no_java / "b", 'JAVA_VERSION="17.0.15"')
    assert jvm.find_java() == oldest
    on_path = java_home(tmp_path / "path", 'JAVA_VERSION="21"')
    (on_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path / "bin"))
    assert jvm.find_java() == on_path
    chosen = java_home(tmp_path / "chosen", 'JAVA_VERSION="22.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(chosen))
    assert jvm.find_java() == chosen


def test_without_pyspark_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    monkeypatch.setattr(jvm, "find_spec", lambda _: None)
    with pytest.raises(LocalSparkError) as caught:
        local.session()
    assert str(caught.value) == (
        "local Spark must have pyspark: got none; run: pip install 'dbx-aml[local]'"
    )


def test_delta_s_jars_match_the_installed_spark_and_replace_none_of_its_own() -> None:
    jars = jvm.delta_jars(fetch=False)
    names = {jar.name for jar in jars}
    assert "io.delta_delta-spark_4.1_2.13-4.4.0.jar" in names
    assert "io.delta_delta-storage-4.4.0.jar" in names
    own = {jvm._artifact(jar.name) for jar in (jvm.spark_home() / "jars").iterdir()}
    assert "jackson-core" in own
    assert not own & {jvm._artifact(name.split("_", 1)[1]) for name in names}


def test_of_what_ivy_fetched_only_what_spark_lacks_goes_before_spark_s_own_jars() -> None:
    fetched = [
        Path("/ivy/io.delta_delta-spark_4.1_2.13-4.4.0.jar"),
        Path("/ivy/com.fasterxml.jackson.core_jackson-core-2.13.5.jar"),
        Path("/ivy/commons-logging_commons-logging-1.3.0.jar"),
    ]
    assert jvm._missing_jars(fetched, ["jackson-core-2.20.0.jar"]) == fetched[:1]


def test_jars_that_are_not_here_are_one_line_when_the_network_may_not_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A listing that names a jar which somebody removed counts as none."""
    listing = next(jvm.cache_folder().glob("io.delta-*.txt"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dbx-aml").mkdir()
    (tmp_path / "dbx-aml" / listing.name).write_text("/removed/delta.jar\n")
    with pytest.raises(LocalSparkError) as caught:
        jvm.delta_jars(fetch=False)
    assert str(caught.value) == (
        "Delta's jars must be here: got no io.delta:delta-spark_4.1_2.13:4.4.0; run 'make setup'"
    )


def tables(root: Path) -> Path:
    """Make a warehouse: a table, one of another format, and what a killed job left of two."""
    for name in ("table/_delta_log/0.json", "table/a.parquet", "other/_SUCCESS", "other/a.parquet"):
        file = root / "warehouse" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for name in ("killed", "nightly.db/killed"):
        (root / "warehouse" / name).mkdir(parents=True)
        (root / "warehouse" / name / "part-0.snappy.parquet").write_bytes(b"rows")
    return root / "warehouse"


def test_what_a_killed_job_left_of_a_new_table_is_moved_away_and_nothing_else(
    tmp_path: Path,
) -> None:
    made = tables(tmp_path)
    warehouse.set_aside_leftovers(tmp_path, os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT))
    assert sorted(path.name for path in made.iterdir()) == ["nightly.db", "other", "table"]
    assert list((made / "nightly.db").iterdir()) == []
    moved = sorted((tmp_path / "leftovers").glob("killed-*/part-0.snappy.parquet"))
    assert [file.read_bytes() for file in moved] == [b"rows", b"rows"]


def test_files_without_a_table_are_left_alone_while_another_job_runs(tmp_path: Path) -> None:
    made = tables(tmp_path)
    other = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_SH)
    mine = os.open(tmp_path / ".lock", os.O_RDWR)
    started = time.monotonic()
    warehouse.set_aside_leftovers(tmp_path, mine, wait_s=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert (made / "killed").exists()
    os.close(other)
    warehouse.set_aside_leftovers(tmp_path, mine, wait_s=0)
    assert not (made / "killed").exists()
