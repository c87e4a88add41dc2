"""Environments on this machine: built once, kept while they are used, removed beyond a size."""

from __future__ import annotations

import platform
import subprocess
import tarfile
from pathlib import Path

import pytest

from dbx_aml._common.errors import PackagesError
from dbx_aml.local import built_environment as module
from dbx_aml.local.built_environment import build_environment, minor_version
from dbx_aml.local.pinned_environment import PinnedEnvironment

OWN_PYTHON = minor_version(platform.python_version())


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, ...]]:
    """The calls of uv; a call makes the folder that the fixture's test expects, and no more."""
    calls: list[tuple[str, ...]] = []

    def run(arguments, timeout_s, *, input_text=""):
        calls.append(tuple(arguments))
        if arguments[0] == "venv":
            folder = Path(arguments[-1])
            (folder / "lib" / "python3.12" / "site-packages" / "six").mkdir(parents=True)
            (folder / "lib" / "python3.12" / "site-packages" / "six" / "six.py").write_text("1")
            (folder / "pyvenv.cfg").write_text("home = /opt/python/bin\nversion_info = 3.12.4\n")
        return ""

    monkeypatch.setattr(module, "run_uv", run)
    return calls


def pins(number: int) -> PinnedEnvironment:
    return PinnedEnvironment(python="3.12", requirements=(f"six==1.{number}",))


def test_an_environment_is_built_once_and_a_stopped_build_is_done_again(
    environments_folder, calls
) -> None:
    environment = PinnedEnvironment(python="3.12", requirements=("six==1.17.0",))
    stopped = environments_folder / environment.hash
    (stopped / "bin").mkdir(parents=True)
    steps: list[str] = []
    built = build_environment(environment, steps.append)
    assert built == build_environment(environment, steps.append)
    assert built.interpreter == stopped / "bin" / "python"
    assert built.python_version == "3.12.4"
    assert not (stopped / "bin").exists()
    assert [call[0] for call in calls] == ["venv", "pip"]
    assert steps == ["Building the environment"]


def test_an_environment_with_the_python_of_this_process_is_installed_and_starts(
    environments_folder,
) -> None:
    environment = PinnedEnvironment(python=OWN_PYTHON, requirements=("six==1.17.0",))
    built = build_environment(environment)
    code = "import six, sys; print(six.__version__, sys.prefix)"
    done = subprocess.run(
        [built.interpreter, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1.17.0", str(environments_folder / environment.hash)]
    assert built.python_version == platform.python_version()


def test_a_python_that_is_neither_here_nor_downloaded_is_named(
    environments_folder, monkeypatch
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(PackagesError, match=r"Python of the model .*: got 3\.9[0-9]") as caught:
        build_environment(PinnedEnvironment(python="3.99", requirements=("six==1.17.0",)))
    assert "install Python 3.99" in str(caught.value)


def test_a_package_that_does_not_install_is_named_and_leaves_no_environment(
    environments_folder,
) -> None:
    environment = PinnedEnvironment(python=OWN_PYTHON, requirements=("six==0.0.999",))
    for _ in range(2):
        with pytest.raises(PackagesError, match=r"must install on this machine.*six==0\.0\.999"):
            build_environment(environment)


def test_beyond_the_largest_size_the_environment_that_was_used_longest_ago_goes(
    environments_folder, calls, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 150)
    for number in (1, 2):
        build_environment(pins(number))
    build_environment(pins(1))  # used again
    build_environment(pins(3))
    left = {file.parent.name for file in environments_folder.glob("*/requirements.txt")}
    assert left == {pins(1).hash, pins(3).hash}
    assert not (environments_folder / pins(2).hash).exists()


def test_an_environment_that_is_in_use_stays_however_large_all_are(
    environments_folder, calls, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 0)
    used = build_environment(pins(1))
    build_environment(pins(2))
    assert used.interpreter.parent.parent == environments_folder / pins(1).hash
    assert used.packages_folder.is_dir()
    del used
    build_environment(pins(3))
    assert [file.parent.name for file in environments_folder.glob("*/requirements.txt")] == [
        pins(3).hash
    ]


def test_an_environment_is_packed_once_for_nodes_with_the_same_python(
    environments_folder, calls, monkeypatch
) -> None:
    monkeypatch.setattr(module.platform, "python_version", lambda: "3.12.9")
    built = build_environment(pins(1))
    (built.packages_folder / "six" / "__pycache__").mkdir()
    archive = built.pack()
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == ["packages", "packages/six", "packages/six/six.py"]
    written = archive.stat().st_mtime_ns
    assert built.pack().stat().st_mtime_ns == written
    assert archive.name == f"{pins(1).hash}.tar.gz"


def test_another_python_is_packed_too_unless_it_is_the_systems(
    environments_folder, calls, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(module.platform, "python_version", lambda: "3.11.7")
    built = build_environment(pins(1))
    settings = built.folder / "pyvenv.cfg"
    settings.write_text(f"home = {tmp_path}/python/bin\n")
    for name in ("bin/python3", "lib/os.py", "lib/test/test_os.py", "lib/config/libpython.a"):
        (tmp_path / "python" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "python" / name).write_text("")
    archive = build_environment(pins(1)).pack()
    with tarfile.open(archive) as tar:
        files = {name for name in tar.getnames() if name.startswith("python/")}
    assert {"python/bin/python3", "python/lib/os.py"} <= files
    assert not files & {"python/lib/test/test_os.py", "python/lib/config/libpython.a"}
    archive.unlink()
    settings.write_text("home = /usr/bin\n")
    with pytest.raises(PackagesError, match=r"folder of its own: got /usr.*uv python install 3.12"):
        build_environment(pins(1)).pack()
