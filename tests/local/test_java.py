"""The search for a Java that runs Spark, and the start and end of its JVM."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dbx_aml._common.errors import LocalSparkError
from dbx_aml.local import java
from dbx_aml.local.delta_folder import try_exclusive_lock


@pytest.mark.spark
@pytest.mark.slow
def test_a_jvm_ends_with_its_python_process_and_unlocks_the_folder(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from dbx_aml.local.delta_folder import lock_folder
from dbx_aml.local.java import start_jvm
root = Path({str(tmp_path)!r})
start_jvm({{}}, root / "spark.log", inherit=[lock_folder(root)])
print("started", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    children = psutil.Process(process.pid).children(recursive=True)
    jvms = [child for child in children if child.name() == "java"]
    assert len(jvms) == 1
    lock = os.open(tmp_path / ".lock", os.O_RDWR)
    jvms[0].suspend()  # a JVM that takes long to end
    process.kill()
    process.communicate()
    assert not try_exclusive_lock(lock)
    jvms[0].resume()
    assert psutil.wait_procs(jvms, timeout=20)[1] == []
    assert try_exclusive_lock(lock)
    os.close(lock)


@pytest.mark.spark
def test_a_jvm_that_cannot_start_is_one_line_with_the_error_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "spark.log"
    options = "-XX:+UseSerialGC -XX:+UseParallelGC"
    with pytest.raises(LocalSparkError) as caught:
        java.start_jvm({"spark.driver.extraJavaOptions": options}, log)
    message = str(caught.value)
    assert "initialization of VM: Multiple garbage collectors selected'" in message
    assert message.endswith(f"; read {log}")


def java_home(folder: Path, release: str) -> Path:
    """Make a Java home that looks like an installed Java with this `release` file."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch()
    (folder / "release").write_text(f'IMPLEMENTOR="Debian"\n{release}\n')
    return folder


@pytest.fixture
def java_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder in which `find_java` looks for installed Javas; it is empty."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(java, "_JAVA_FOLDERS", (f"{tmp_path}/jvm/*",))
    return tmp_path / "jvm"


def test_without_java_one_line_says_what_to_install(java_folder: Path) -> None:
    with pytest.raises(LocalSparkError, match=r"release 17 to 23: got none; run 'sudo apt-get "):
        java.find_java()


@pytest.mark.parametrize("release", ['JAVA_VERSION="1.8.0_402"', 'JAVA_VERSION="25.0.1"'])
def test_a_java_of_an_unsupported_release_is_named(release: str, java_folder: Path) -> None:
    home = java_home(java_folder / "unsupported", release)
    with pytest.raises(LocalSparkError, match=rf"got {home}; run 'sudo apt-get "):
        java.find_java()


def test_a_java_without_the_vector_module_is_skipped(java_folder: Path) -> None:
    java_home(java_folder / "small", 'JAVA_VERSION="17.0.1"\nMODULES="java.base java.sql"')
    with pytest.raises(LocalSparkError, match="got none; run"):
        java.find_java()


def test_java_home_comes_first_then_the_path_then_the_oldest_installed(
    java_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "_JAVA_FOLDERS", (f"{java_folder}/a*", f"{java_folder}/b*"))
    java_home(java_folder / "a", 'JAVA_VERSION="21.0.2"')
    oldest = java_home(java_folder / "b", 'JAVA_VERSION="17.0.15"')
    assert java.find_java() == oldest
    on_path = java_home(tmp_path / "path", 'JAVA_VERSION="21"')
    (on_path / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path / "bin"))
    assert java.find_java() == on_path
    home = java_home(tmp_path / "home", 'JAVA_VERSION="22.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.find_java() == home
