"""The requirements of a model, compared with this machine."""

import pandas as pd
import pytest

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
