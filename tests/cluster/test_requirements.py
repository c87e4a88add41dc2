"""The requirements of added packages on a runtime whose packages must not change."""

from pathlib import Path

import pytest

from dbx_aml._common.errors import ClusterError
from dbx_aml.cluster.node.requirements import WheelHash, read_hashes
from dbx_aml.cluster.resolve import Wheel, check_requirements
from tests.support.node.wheel import write_wheel

HASH = "0" * 64
LINE = f"jsonpickle==4.1.4 --hash=sha256:{HASH}"


def check(requirement: str, **versions: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    wheel = Wheel(name="plugin", version="1.0", requires=[requirement])
    found = check_requirements([wheel], versions, "3.12")
    return found.missing, found.newer


def test_a_package_that_the_runtime_lacks_is_missing_with_its_limits_and_extras() -> None:
    assert check("blob[aio]<2,>=1; python_version >= '3.11'") == (("blob[aio]<2,>=1",), ())


@pytest.mark.parametrize("marker", ["extra == 'x'", "python_version < '3.12'", "os_name == 'nt'"])
def test_a_requirement_for_another_machine_does_not_count(marker: str) -> None:
    assert check(f"blob; {marker}") == ((), ())


@pytest.mark.parametrize("limit", ["<=1.5", "~=1.2", "==1.0", ">=1,<2", "==1.*"])
def test_a_newer_package_of_the_runtime_stays_and_is_said(limit: str) -> None:
    missing, (message,) = check(f"blob{limit}", blob="2.0")
    assert missing == ()
    assert message.startswith("blob 2.0 stays, although plugin 1.0 requires ")


@pytest.mark.parametrize("limit", [">=3", ">2.5", "~=2.1", "==3.*", "!=2.0"])
def test_an_older_or_excluded_package_of_the_runtime_is_refused(limit: str) -> None:
    with pytest.raises(
        ClusterError, match=r"blob must be .* for plugin 1\.0: the runtime has 2\.0"
    ):
        check(f"blob{limit}", blob="2.0")


def test_a_wheel_has_the_values_of_its_metadata(tmp_path: Path) -> None:
    file = write_wheel(tmp_path, "azureml-mlflow", "1.62.0.post6", ["msrest>=0.6.18"])
    assert Wheel.from_file(file) == Wheel(
        name="azureml-mlflow", version="1.62.0.post6", requires=["msrest>=0.6.18"]
    )
    file.write_bytes(b"no archive")
    with pytest.raises(ClusterError, match="must be a wheel"):
        Wheel.from_file(file)


@pytest.mark.parametrize("text", [f"{LINE}\n", f"\ufeff{LINE}\n", f"{LINE}\r\n"])
def test_a_list_is_read_from_any_editor(text: str) -> None:
    assert read_hashes(text) == [WheelHash(name="jsonpickle", version="4.1.4", sha256=HASH)]


@pytest.mark.parametrize(
    "line",
    ["", "jsonpickle", "-e .", "b @ file:///b.whl", LINE, f"{LINE} \\", LINE.replace("0", "g")],
)
def test_a_line_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(ClusterError, match="line 2 is none"):
        read_hashes(f"{LINE}\n{line}\n")
