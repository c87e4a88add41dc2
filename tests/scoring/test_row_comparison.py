"""Two sets of scored rows that are compared."""

import pytest

from dbx_aml.scoring.row_comparison import compare_rows


@pytest.mark.spark
@pytest.mark.parametrize(
    ("kind", "stored", "replayed", "difference"),
    [
        ("int", 2_000_000_000, -2_000_000_000, 4e9),
        ("bigint", 2**63 - 1, -(2**63), 2.0**64),
        ("bigint", 2**53 + 1, 2**53, 1.0),
        ("double", 1.5, -1.0, 2.5),
        ("boolean", True, False, None),
    ],
)
def test_the_largest_difference_is_exact_for_all_numbers(spark, kind, stored, replayed, difference):
    frames = [
        spark.createDataFrame([(1, value)], f"id int, prediction {kind}")
        for value in (stored, replayed)
    ]
    compared = compare_rows(*frames, ["id"])
    assert (compared.rows_equal, compared.rows_different) == (0, 1)
    assert compared.largest_difference == difference
