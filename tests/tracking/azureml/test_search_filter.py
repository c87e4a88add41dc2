"""Filters that Azure ML and this package decide together."""

import pytest
from mlflow.utils.search_utils import SearchUtils

from dbx_aml.tracking.azureml.search_filter import Condition, split_filter


@pytest.mark.parametrize(
    ("comparator", "value", "is_met_by", "is_not_met_by"),
    [
        ("=", "a", ["a"], ["A", "b", None]),
        ("!=", "a", ["A", "b"], ["a", None]),
        ("LIKE", "%END", ["END", "an\nEND"], ["end", "ENDS", None]),
        ("LIKE", "a_c%", ["abc", "a.cd"], ["ac", "xabc"]),
        ("LIKE", "100%.", ["100 %."], ["100 %x"]),
        ("ILIKE", "%eNd", ["the END"], ["ends"]),
        ("IS NULL", None, [None], ["", "a"]),
        ("IS NOT NULL", None, ["", "a"], [None]),
    ],
)
def test_a_condition_compares_as_mlflows_server_does(
    comparator: str, value: str | None, is_met_by: list[str | None], is_not_met_by: list[str | None]
) -> None:
    condition = Condition(text="", kind="tag", key="k", comparator=comparator, value=value)

    assert [text for text in [*is_met_by, *is_not_met_by] if condition.is_met_by(text)] == is_met_by


def test_a_filter_is_split_between_the_service_and_this_package() -> None:
    text = (
        "params.a LIKE '%END' AND tags.`x y` != \"a AND b\" and metrics.m > 3 "
        "and attributes.run_id IN ('a','b')"
    )

    service_filter, conditions = split_filter(
        text, SearchUtils, lambda condition: condition.kind in ("parameter", "tag")
    )

    assert service_filter == "metrics.m > 3 AND attributes.run_id IN ('a','b')"
    assert [(item.key, item.comparator, item.value) for item in conditions] == [
        ("a", "LIKE", "%END"),
        ("x y", "!=", "a AND b"),
    ]


@pytest.mark.parametrize("text", ["params.a = '1' OR params.a = '2'", "nothing"])
def test_a_filter_that_mlflow_does_not_parse_goes_to_the_service_as_it_is(text: str) -> None:
    assert split_filter(text, SearchUtils, lambda _: True) == (text, [])
