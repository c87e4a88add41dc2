"""JSON that others wrote is read with its types, and its text is never repeated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from dbx_aml._common.json_content import check_types, has_type, parse_json


@dataclass
class Part:
    name: str
    size: float | None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is no JSON"),
        ('{"hunter2', "it is no JSON"),
        (b"\xff\xfe\x00", "it is no JSON"),
        ("9" * 5000, "it is no JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[" * 33 + "]" * 33, "it is nested too deeply"),
        ('{"a":' * 40 + "1" + "}" * 40, "it is nested too deeply"),
    ],
)
def test_a_text_that_is_no_json_is_a_value_error_without_the_text(
    text: str | bytes, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_json(text)
    assert str(caught.value) == problem
    assert caught.value.__context__ is None


def test_json_of_the_usual_depth_is_read() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [{"b": null}]}') == {"a": [{"b": None}]}
    assert parse_json("[" * 32 + "]" * 32)


@pytest.mark.parametrize(
    ("value", "hint", "is_right"),
    [
        ("ü", str, True), ("\ud800", str, False), (1, str, False), (None, str, False),
        (1, float, True), (0.5, float, True), (True, float, False), ("1", float, False),
        (float("nan"), float, False), (float("inf"), float, False), (10**400, float, False),
        (True, bool, True), (1, bool, False), (None, str | None, True), (3, str | None, False),
        ("a", Literal["a", "b"], True), ("c", Literal["a", "b"], False),
        (["a"], Literal["a"], False), ({}, Literal["a"], False),
        (["a"], tuple[str, ...], True), ("a", tuple[str, ...], False),
        (["a", 1], tuple[str, ...], False), ({"a": 1}, tuple[str, ...], False),
        ({"a": "b"}, Mapping[str, str], True), ({"a": None}, Mapping[str, str], False),
        ({"a": {"b": "c"}}, Mapping[str, Mapping[str, str]] | None, True),
        ([], Mapping[str, str], False),
        ([{"name": "a", "size": None, "new": 1}], tuple[Part, ...], True),
        ([{"name": "a"}], tuple[Part, ...], False), ([["a", 1]], tuple[Part, ...], False),
    ],
)  # fmt: skip
def test_a_value_has_a_type_at_every_depth(value: object, hint: Any, is_right: bool) -> None:
    assert has_type(value, hint) is is_right


def test_a_wrong_type_names_the_known_key_only() -> None:
    hints = {"mode": Literal["aml", "dual"], "files": Mapping[str, str], "tags": tuple[str, ...]}
    check_types({"mode": "aml", "hunter2": "hunter2"}, hints)
    for value, problem in (
        (["hunter2"], "it is a list"),
        ({"mode": "hunter2"}, "mode must be one of ['aml', 'dual']"),
        ({"files": {"hunter2": 1}}, "files must be an object with the right fields"),
        ({"tags": ["hunter2", 1]}, "tags must be a list, each text"),
    ):
        with pytest.raises(ValueError, match=re.escape(problem)) as caught:
            check_types(value, hints)
        assert str(caught.value) == problem
    with pytest.raises(ValueError, match="a must be a number or null"):
        check_types({"a": "x"}, {"a": float | None})
