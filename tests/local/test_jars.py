"""Delta's jars: they match the installed Spark, and replace none of Spark's own jars."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local import jars
from dbx_aml.local.jars import _artifact, _missing_jars, cache_folder, delta_jars, spark_home


def test_delta_s_jars_match_the_installed_spark_and_replace_no_jar_of_spark() -> None:
    delta = {jar.name for jar in delta_jars(fetch=False)}
    assert "io.delta_delta-spark_4.1_2.13-4.4.0.jar" in delta
    assert "io.delta_delta-storage-4.4.0.jar" in delta
    spark = {_artifact(jar.name) for jar in (spark_home() / "jars").iterdir()}
    assert "jackson-core" in spark
    assert not spark & {_artifact(name.split("_", 1)[1]) for name in delta}


@pytest.mark.parametrize(
    ("spark", "scala", "delta", "coordinate"),
    [
        ("3.5.3", "2.12", "3.3.3", "io.delta:delta-spark_2.12:3.3.3"),
        ("4.0.0", "2.13", "4.0.1", "io.delta:delta-spark_2.13:4.0.1"),
        ("4.2.0", "2.13", "4.4.0", "io.delta:delta-spark_4.2_2.13:4.4.0"),
    ],
)
def test_delta_s_jar_is_that_of_the_installed_spark_and_its_scala(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    spark: str,
    scala: str,
    delta: str,
    coordinate: str,
) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / f"spark-core_{scala}-{spark}.jar").touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    versions = {"pyspark": spark, "delta-spark": delta}
    monkeypatch.setattr(jars, "version", versions.__getitem__)
    with pytest.raises(LocalSparkError, match=f"got no {coordinate};"):
        delta_jars(fetch=False)


def test_a_fetched_jar_that_spark_has_already_is_left_out() -> None:
    fetched = [
        Path("/ivy/io.delta_delta-spark_4.1_2.13-4.4.0.jar"),
        Path("/ivy/com.fasterxml.jackson.core_jackson-core-2.13.5.jar"),
        Path("/ivy/commons-logging_commons-logging-1.3.0.jar"),
    ]
    assert _missing_jars(fetched, ["jackson-core-2.20.0.jar"]) == fetched[:1]


def test_without_network_a_missing_jar_is_one_line_that_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The list of an earlier fetch names a jar that was deleted since."""
    listing = next(cache_folder().glob("io.delta-*.txt"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dbx-aml").mkdir()
    (tmp_path / "dbx-aml" / listing.name).write_text("/removed/delta.jar\n")
    with pytest.raises(LocalSparkError, match=r"got no io\.delta:delta-spark_.*; run 'make setup'"):
        delta_jars(fetch=False)


@pytest.mark.parametrize("jar", ["spark-core_2.12-3.3.0.jar", "other.jar"])
def test_a_spark_home_of_another_spark_is_refused_with_the_variable_to_unset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jar: str
) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / jar).touch()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    message = rf"SPARK_HOME must be a folder of Spark 4\.1, .* got '{tmp_path}'; unset SPARK_HOME$"
    with pytest.raises(LocalSparkError, match=message):
        spark_home()
