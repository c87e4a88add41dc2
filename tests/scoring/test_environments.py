"""The requirements of a model, compared with this machine."""

import pandas as pd
import pytest

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring import environments
from dbx_aml.scoring.environments import requirement_differences


@pytest.mark.parametrize(
    ("requirements", "differences"),
    [
        ("", []),
        ("pandas", []),
        ("pandas==0.1", [f"pandas==0.1: {pd.__version__} here"]),
        ("nosuchpackage==3", ["nosuchpackage==3: not installed here"]),
        ("nosuchpackage; python_version<'3'", []),
        ("-c constraints.txt\n# a comment\npandas", []),
    ],
)
def test_a_requirement_that_this_machine_does_not_meet_is_listed(
    tmp_path, requirements, differences
):
    (tmp_path / "requirements.txt").write_text(requirements)
    assert requirement_differences(tmp_path) == differences


def test_an_mlflow_whose_spark_udf_lacks_a_package_is_refused_before_the_workers_fail(monkeypatch):
    monkeypatch.setattr(environments, "version", lambda package: "2.19.0")
    environments.check_spark_udf()
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    message = r"MLflow 2\.19\.0 must have flask>=2\.2: got none; run '%pip install flask>=2\.2' or"
    with pytest.raises(ScoringError, match=message):
        environments.check_spark_udf()
