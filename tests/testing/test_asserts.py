"""chispa's asserts through the test kit: the same result, with a hint."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import chispa
import pytest

from dbx_aml.testing.asserts import assert_approx_column_equality, assert_df_equality

pytestmark = pytest.mark.spark


def test_rows_in_another_order_differ_and_the_error_shows_the_argument_for_it(spark: Any) -> None:
    actual = spark.createDataFrame([(1,), (2,)], "id INT")
    expected = spark.createDataFrame([(2,), (1,)], "id INT")

    with pytest.raises(chispa.DataFramesNotEqualError) as caught:
        assert_df_equality(actual, expected)

    assert "ignore_row_order=True" in caught.value.__notes__[0]
    assert_df_equality(actual, expected, ignore_row_order=True)


def test_a_wrong_call_shows_a_right_one(spark: Any) -> None:
    with pytest.raises(TypeError) as caught:
        assert_approx_column_equality(spark.range(1), "id", "id")
    assert 'frame, "minutes", "expected", precision=0.01' in caught.value.__notes__[0]


def test_without_chispa_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['chispa'] = None; import dbx_aml.testing.asserts"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: the asserts must have chispa: got none; run: pip ")
    assert last_line.endswith("[test]'")
