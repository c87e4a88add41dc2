"""Text for messages and for SQL."""

import pytest

from dbx_aml._common.text import (
    first_line,
    one_line,
    parse_count,
    plural,
    printable,
    sql_identifier,
    sql_literal,
)


def test_one_line_has_single_blanks_and_a_bound() -> None:
    assert one_line("a\n  b\tc ") == "a b c"
    assert one_line("x" * 50, 10) == "xxxxxxx..."
    assert one_line("x" * 10, 10) == "x" * 10
    assert one_line(ValueError()) == "ValueError"
    assert one_line("") == ""


def test_first_line_is_never_empty() -> None:
    assert first_line(ValueError("\nwrong\nmore")) == "wrong"
    assert first_line(ValueError()) == "ValueError"


def test_a_count_has_its_noun() -> None:
    assert [plural(count, "run") for count in (0, 1, 2104)] == ["0 runs", "1 run", "2,104 runs"]


def test_names_and_texts_are_quoted_for_spark_sql() -> None:
    assert sql_identifier("a`b.c") == "`a``b.c`"
    assert sql_literal("it's a \\") == r"'it\'s a \\'"


@pytest.mark.parametrize("text", ["0", "7", "0007", "10"])
def test_a_count_in_ascii_digits_up_to_the_limit_is_a_number(text: str) -> None:
    assert parse_count(text, 10) == int(text)


@pytest.mark.parametrize("text", ["", "11", "-1", "+1", " 1", "1 ", "1\n", "²", "٣", "0x1", "1_0"])
def test_any_other_count_is_an_error_without_its_text(text: str) -> None:
    for wrong in (text, "9" * 100_000):
        with pytest.raises(ValueError, match=r"^a count must be a number from 0 to 10 in ASCII"):
            parse_count(wrong, 10)


def test_a_secret_is_replaced_before_a_text_is_cut_off() -> None:
    error = ValueError("no answer of https://ana:s3cret@mlflow.example/api\nmore")
    assert one_line(error, 35) == "no answer of https://***@mlflow...."
    assert first_line(error) == "no answer of https://***@mlflow.example/api"


def test_a_terminal_gets_no_control_code() -> None:
    text = "a\tb\nc\r\nd\re\x1b]0;x\x07\x9b2J\x7f\u202e\ud800é"
    assert printable(text) == "a\tb\nc\nd" + r"\re\x1b]0;x\x07\x9b2J\x7f\u202e\ud800" + "é"
