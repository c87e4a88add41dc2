"""Tables of the command: numbers, ids and heads are whole at every width, and in a pipe."""

import io
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from dbx_aml.cli import tables
from dbx_aml.cli.tables import (
    Column,
    linked_text,
    print_fields,
    print_json,
    print_line,
    print_table,
)

RUN_ID = "0123456789abcdef0123456789abcdef"
PATH = "/Volumes/main/flights/models/" + "long-folder-name/" * 4
REASON = "Azure ML refused the token, which expired an hour ago; sign in again"
COLUMNS = [
    Column("run id"),
    Column("rows scored", is_number=True),
    Column("started (UTC)", is_optional=True),
    Column("reason", is_prose=True),
]
ROW = (RUN_ID, 281_373, "2026-11-24 08:00:00", REASON)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table_lines(columns, rows, *, width=None, title="") -> list[str]:
    """Return the printed lines, on a terminal of a width or, without one, in a pipe."""
    file = io.StringIO() if width is None else Terminal()
    console = Console(file=file, width=width or 80, force_terminal=False)
    print_table(columns, rows, title=title, console=console)
    return file.getvalue().splitlines()


def test_in_a_pipe_each_row_is_one_whole_line() -> None:
    lines = table_lines([*COLUMNS, Column("path")], [(*ROW, PATH)] * 2)
    assert len(lines) == 3
    assert lines[1].split("  ")[-2:] == [REASON, PATH]


def test_in_a_pipe_the_lines_of_a_cell_are_joined() -> None:
    assert table_lines([Column("metrics")], [("loss=1\nacc=2",)])[1] == "loss=1 acc=2"


def test_in_a_pipe_the_url_of_a_linked_cell_is_text_in_a_column_of_its_own() -> None:
    columns, page = [Column("run"), Column("name")], "https://ml.azure.com/runs/r?wsid=/a/b"
    rows = [(linked_text("r", page), "first"), (linked_text("s", None), "second")]
    lines = table_lines(columns, rows)
    assert [line.split() for line in lines] == [
        ["run", "name", "run", "page"],
        ["r", "first", page],
        ["s", "second"],
    ]
    assert "page" not in table_lines(columns, rows, width=80)[0]


def test_a_wide_terminal_shows_every_column() -> None:
    head, row, *_ = table_lines(COLUMNS, [ROW], width=160)
    assert head.split() == ["run", "id", "rows", "scored", "started", "(UTC)", "reason"]
    assert row.endswith(REASON)


def test_a_narrow_terminal_leaves_out_optional_columns_and_wraps_prose_between_words() -> None:
    lines = table_lines(COLUMNS, [ROW], width=80)
    assert max(map(len, lines)) <= 80
    assert "started" not in "\n".join(lines)
    assert any(line.startswith(f"{RUN_ID}  ") and "281,373" in line for line in lines)
    assert " ".join(word for line in lines for word in line.split()).endswith("again")


def test_a_table_that_is_too_wide_becomes_a_block_for_each_row() -> None:
    lines = table_lines(
        [*COLUMNS, Column("path")], [(*ROW, PATH), (RUN_ID, 1, "", "", "/x")], width=80
    )
    assert f"path           {PATH}" in lines, "longer than the terminal, and whole"
    assert "started (UTC)  2026-11-24 08:00:00" in lines
    block = lines[lines.index("") + 1 :]
    assert block == [f"run id         {RUN_ID}", "rows scored    1", "path           /x"]


def test_a_row_that_is_too_wide_continues_on_the_next_line() -> None:
    columns = [Column("name"), Column("value"), Column("rows", is_number=True)]
    rows = [("a", "/x", 1), ("b", PATH, 23), ("c", "/y", 4)]
    assert table_lines(columns, rows, width=40) == [
        "name  value  rows",
        "a     /x        1",
        f"b     {PATH}",
        "               23",
        "c     /y        4",
    ]


def test_a_long_word_at_the_end_of_a_line_leaves_the_other_rows_a_table() -> None:
    columns = [Column("check"), Column("result", is_prose=True)]
    rows = [("token", "fine"), ("host", f"see {PATH}")]
    assert table_lines(columns, rows, width=40) == [
        "check  result",
        "token  fine",
        "host   see",
        f"       {PATH}",
    ]


def test_a_long_word_in_prose_stays_whole() -> None:
    lines = table_lines([Column("reason", is_prose=True)], [(f"see {PATH} for more",)], width=40)
    assert any(PATH in line for line in lines)


@pytest.mark.parametrize("width", [None, 20, 80])
def test_numbers_end_at_the_right_edge_and_the_head_is_whole(width: int | None) -> None:
    columns = [Column("rows", is_number=True), Column("seconds", is_number=True)]
    assert table_lines(columns, [(281_373, 1234.56), (3, None)], width=width) == [
        "   rows  seconds",
        "281,373  1,234.6",
        "      3",
    ]


def test_cells_are_text_and_no_markup() -> None:
    assert table_lines([Column("name")], [("[bold]x",)], title="[red]")[::2] == ["[red]", "[bold]x"]


@pytest.mark.parametrize("width", [40, 200])
def test_colours_change_no_position(width: int) -> None:
    coloured = [(Text("failed", style="bold red"), "a\nb"), (Text("ok"), "c")]
    plain = [(status.plain, value) for status, value in coloured]
    columns = [Column("status"), Column("result", is_prose=True)]
    assert table_lines(columns, coloured, width=width) == table_lines(columns, plain, width=width)


def test_fields_leave_out_what_is_empty_and_align_the_lines_of_a_value() -> None:
    file = io.StringIO()
    fields = [("model", "models:/delay/1"), ("batch id", None), ("columns", "a: x\nb: y")]
    print_fields(fields, title="Scored", console=Console(file=file, width=20))
    assert file.getvalue().splitlines() == [
        "Scored",
        "model    models:/delay/1",
        "columns  a: x",
        "         b: y",
    ]


def test_json_has_times_in_iso_8601_and_no_number_that_json_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json([math.nan, {"up": math.inf, "down": -math.inf}])
    line = capsys.readouterr().out
    assert line == '["NaN", {"up": "Infinity", "down": "-Infinity"}]\n'
    print_json({"started": datetime(2026, 11, 24, 8, tzinfo=UTC), "name": "é"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"started": "2026-11-24T08:00:00+00:00", "name": "é"}
    assert "é" in printed


WILD = "good\x1b]0;owned\x1b[2J\x9b8m[/red]"
SHOWN = r"good\x1b]0;owned\x1b[2J\x9b8m[/red]"


@pytest.mark.parametrize("width", [None, 20, 200])
def test_control_codes_of_cells_heads_and_titles_are_shown(width: int | None) -> None:
    for cell in (WILD, Text(WILD, style="bold")):
        lines = table_lines([Column("name"), Column(WILD)], [(cell, 1)], width=width, title=WILD)
        text = "\n".join(lines)
        assert text.count(SHOWN) == 3
        assert "\x1b" not in text
        assert "\x9b" not in text
    file = io.StringIO()
    print_fields([(WILD, WILD)], title=WILD, console=Console(file=file))
    assert file.getvalue().count(SHOWN) == 3


def test_a_terminal_shows_control_codes_in_reverse() -> None:
    file = Terminal()
    console = Console(file=file, width=80, force_terminal=True, color_system="standard")
    print_table([Column("name")], [("a\x1b[2J",)], console=console)
    assert file.getvalue().splitlines()[1] == "a\x1b[7m\\x1b\x1b[0m[2J"


def test_json_has_no_secret_and_no_control_code(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"uri": ["https://ana:s3cret@h.example"], WILD: "a\x9b2J\ud800", "n": float("inf")}
    print_json(value)
    line = capsys.readouterr().out
    assert "\x9b" not in line
    assert json.loads(line) == {**value, "uri": ["https://***@h.example"], "n": "Infinity"}


def test_a_line_is_printed_without_secrets_and_control_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_line(f"https://ana:s3cret@h.example {WILD}", is_error=True)
    assert capsys.readouterr().err == f"https://***@h.example {SHOWN}\n"


def test_the_command_prints_through_this_module_only() -> None:
    files = sorted(Path(tables.__file__).parent.glob("*.py"))
    prints = {
        file.name: text.count("click.echo(") + text.count("click.secho(")
        for file in files
        for text in [file.read_text(encoding="utf-8")]
        if re.search(r"click\.s?echo\(|(?<!\w)print\(", text)
    }
    # The text of the init script is written as it is: `render` refuses a secret in it.
    assert prints == {"tables.py": 2, "cluster.py": 1}


def test_json_has_numbers_that_every_program_reads(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "limits": [float("inf"), -float("inf"), 0.5]})
    line = capsys.readouterr().out
    assert line == '{"loss": "NaN", "limits": ["Infinity", "-Infinity", 0.5]}\n'
