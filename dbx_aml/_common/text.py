"""Text for messages and for SQL, and numbers in texts of others."""

import re

from dbx_aml._common.redact import redact

# C0 but line end and tab, DEL, C1, marks that change the direction of writing, and halves of a
# character that no encoding has.
CONTROL_CODES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text for a terminal or a log: no secrets, and a control code as "\x1b".

    A terminal obeys control codes: they may clear the screen, hide text or change the title.
    """
    text = redact(text).replace("\r\n", "\n")
    return CONTROL_CODES.sub(lambda match: ascii(match[0])[1:-1], text)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, without secrets.

    An error without a message gives the name of its class.
    """
    return redact(str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(text: object, limit: int | None = None) -> str:
    """Return a text without secrets, with every run of blanks and line breaks as one blank.

    Args:
        text: Text or error; of an error without a message the name of its class is returned.
        limit: Most characters of the result; a longer text ends with "...".
    """
    # A secret that is cut off could no longer be recognised.
    line = " ".join(redact(str(text)).split())
    if not line and isinstance(text, BaseException):
        line = type(text).__name__
    if limit is not None and len(line) > limit:
        return f"{line[: limit - 3]}..."
    return line


def install_command(extra: str) -> str:
    """Return the command that installs this package with an extra, from the wheel of 'make build'.

    A message never names the package alone: on a package index the name is anybody's.

    Args:
        extra: Name of the extra, for example "cluster".
    """
    # Only errors need it, and its import takes longer than the import of the package.
    from importlib.metadata import version

    return f"pip install './dist/dbx_aml-{version('dbx-aml')}-py3-none-any.whl[{extra}]'"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, for example "1 run" or "1,204 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sql_identifier(name: str) -> str:
    """Return a table's or column's name quoted for Spark SQL, dots and backticks included."""
    return "`" + name.replace("`", "``") + "`"


def sql_literal(text: str) -> str:
    """Return a string literal for Spark SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def parse_count(text: str, limit: int) -> int:
    """Return the count that another program wrote, for example in a tag.

    `int` and `str.isdigit` take the digits of every script, and `int` any number of them.

    Args:
        text: Count in ASCII digits.
        limit: Highest count.

    Raises:
        ValueError: The text is no count up to the limit. The message has no part of the text.
    """
    if re.fullmatch("[0-9]{1,15}", text) and int(text) <= limit:
        return int(text)
    raise ValueError(f"a count must be a number from 0 to {limit:,} in ASCII digits")
