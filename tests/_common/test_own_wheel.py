"""The wheel that the running package writes of itself."""

import subprocess
import sys
from pathlib import Path

from dbx_aml._common.own_wheel import write_own_wheel


def test_pip_installs_the_wheel_of_the_running_package_with_its_entry_points(
    tmp_path: Path,
) -> None:
    wheel = write_own_wheel(tmp_path)
    target = tmp_path / "target"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *("--target", str(target), str(wheel)),
        ],
        check=True,
    )
    import dbx_aml

    for name in ("__init__.py", "cluster/runtimes.txt", "serving/score_script.py"):
        own = Path(dbx_aml.__file__).parent / name
        assert (target / "dbx_aml" / name).read_bytes() == own.read_bytes()
    (info,) = target.glob("dbx_aml-*.dist-info")
    assert "azureml=dbx_aml.tracking" in (info / "entry_points.txt").read_text().replace(" ", "")
    again = tmp_path / "again"
    again.mkdir()
    assert write_own_wheel(again).read_bytes() == wheel.read_bytes()
