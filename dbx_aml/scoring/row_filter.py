"""Whether a row filter selects the same rows of the same table tomorrow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dbx_aml._common.text import sql_identifier, sql_literal
from dbx_aml.scoring.spark_errors import SPARK_ERRORS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# Texts and comments of SQL, and names in backticks.
_TEXT = r"""[rR]?'(?:[^'\\]|\\.)*'|[rR]?"(?:[^"\\]|\\.)*\""""
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_TOKEN = re.compile(
    rf"(?P<comment>{_COMMENT})|(?P<text>{_TEXT})|(?P<name>`(?:[^`]|``)*`|[^\W\d]\w*)"
    r"|(?P<number>\.?\d[\w.]*)|(?P<other>\S)",
    re.DOTALL,
)
# Spark reads date'today' as today's date; a date that begins with a digit or a sign is fixed.
_DATE_TYPES = {"date", "time", "timestamp", "timestamp_ltz", "timestamp_ntz"}
_FIXED_DATE = re.compile(r"\s*(?:[-+\d]|epoch)", re.IGNORECASE)
# Texts that Spark converts to a time of today, also without such a type before them.
_MOVING_TEXT = re.compile(
    r"\s*(?:now|today|tomorrow|yesterday)(?:\s.*)?", re.IGNORECASE | re.DOTALL
)
# An hour without a date, which Spark converts to a timestamp of today.
_HOUR = re.compile(r"\s*(?:T\d{1,2}|\d{1,2}:\d)\S*\s*")
# Words of SQL that stand before "(" or between columns and are neither functions nor columns.
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
        all and any array as between bigint binary boolean both byte case cast char collate
        date dateadd datediff day days dec decimal distinct div double else end escape
        exists extract false float for from hour hours ilike in int integer interval is
        leading like long map microsecond microseconds millisecond milliseconds minute
        minutes month months not null numeric or overlay placing position quarter real
        regexp rlike second seconds short smallint some string struct substring then
        timestamp timestamp_ltz timestamp_ntz timestampadd timestampdiff tinyint to trailing
        trim true try_cast unknown varchar week weeks when year years
        """,
    )
)
# Names in Spark's analysed plan of what depends on the time, the user or the session.
_MOVING = re.compile(
    r"\b(current_\w+|localtime\w*|now|curdate|session_user|user|is_member"
    r"|is_account_group_member|variablereference)\("
)
_QUERY = re.compile(r"\b(?:list|exists|scalar-subquery|lateral-subquery)#\d+ \[")
_PYTHON_FUNCTION = re.compile(r"\b(\w+)\([^()]*\)#\d+|\b(UDF)\(")


def unstable_parts(
    spark: SparkSession, row_filter: str, rows: DataFrame, table_name: str
) -> list[str]:
    """Return what in a filter may select other rows of the same table another time.

    These are non-deterministic functions, functions of the time, the user or the session, session
    variables, queries of other tables, and functions that are no part of Spark, whose owner may
    replace them. A filter of columns and constants alone costs no query.

    Args:
        spark: Session that runs the query.
        row_filter: SQL predicate that Spark has accepted for these rows.
        rows: Rows of the input table.
        table_name: Last part of the input table's name, by which the filter may call it.
    """
    words, functions, parts, moving_texts = _read_filter(row_filter)
    columns = {name.lower() for name in rows.columns}
    unknown_words = words - columns - {table_name.lower()} - _KEYWORDS
    if parts or not (functions or unknown_words or moving_texts):
        return sorted(parts)
    parts |= _foreign_functions(spark, functions)
    return sorted(parts | _moving_parts(spark, row_filter, rows, table_name, moving_texts))


def _read_filter(row_filter: str) -> tuple[set[str], set[str], set[str], set[str]]:
    """Read a filter.

    Returns:
        The filter's words in lower case, its functions, its queries and moving dates, and the texts
        that move where Spark converts them to a date or a time.
    """
    tokens = [m for m in _TOKEN.finditer(row_filter) if m.lastgroup != "comment"]
    words, functions, parts, moving_texts = set(), set(), set(), set()
    for index, match in enumerate(tokens):
        token, follower = match[0], tokens[index + 1] if index + 1 < len(tokens) else None
        if match.lastgroup == "text" and any(
            pattern.fullmatch(_content(token)) for pattern in (_MOVING_TEXT, _HOUR)
        ):
            moving_texts.add(token)
        if match.lastgroup != "name":
            continue
        word = token.strip("`").lower()
        is_called = follower is not None and follower[0] == "("
        is_qualified = index > 0 and tokens[index - 1][0] == "."
        if token.lower() == "select":
            parts.add("a query")
        elif word in _DATE_TYPES and follower is not None and follower.lastgroup == "text":
            content = _content(follower[0])
            is_hour = word != "time" and _HOUR.fullmatch(content)
            if is_hour or not _FIXED_DATE.match(content):
                parts.add(f"{word} {follower[0]}")
        elif is_called and word not in _KEYWORDS:
            functions.add(f".{word}" if is_qualified else word)
        elif not is_qualified:
            words.add(word)
    return words, functions, parts, moving_texts


def _content(text: str) -> str:
    """Return a text of SQL without its quotes."""
    return text.lstrip("rR")[1:-1]


def _foreign_functions(spark: SparkSession, functions: Iterable[str]) -> set[str]:
    """Return the functions that are no part of Spark."""
    names = sorted(name for name in functions if not name.startswith("."))
    foreign = {name[1:] for name in functions if name.startswith(".")}
    if names:
        pattern = sql_literal("|".join(names))
        known = {
            name.lower() for (name,) in spark.sql(f"SHOW SYSTEM FUNCTIONS LIKE {pattern}").collect()
        }
        foreign |= set(names) - known
    return {f"{name}()" for name in foreign}


def _moving_parts(
    spark: SparkSession,
    row_filter: str,
    rows: DataFrame,
    table_name: str,
    moving_texts: Iterable[str],
) -> set[str]:
    """Return what Spark's analysis of the filter shows to be unstable.

    Spark refuses a join whose condition is not deterministic.
    """
    # PySpark formats the query; the filter may end with a comment.
    condition = row_filter.replace("{", "{{").replace("}", "}}")
    query = (
        f"EXPLAIN EXTENDED SELECT 1 FROM {{rows}} AS {sql_identifier(table_name)} "
        f"LEFT SEMI JOIN (SELECT 1 AS _dbx_aml_one) ON ({condition}\n)"
    )
    try:
        empty_rows = spark.createDataFrame([], rows.schema)
        plan = spark.sql(query, rows=empty_rows).collect()[0][0]
    except SPARK_ERRORS as err:
        plan = str(err)
    analyzed = plan.partition("== Analyzed Logical Plan ==")[2].partition("== Optimized")[0]
    if "NON_DETERMINISTIC" in plan:
        return {"a function that Spark calls non-deterministic"}
    if not analyzed or "Exception: [" in analyzed:
        return {"what Spark cannot analyse by itself"}
    parts = {f"{match[1]}()" for match in _MOVING.finditer(analyzed)}
    parts |= {f"{match[1] or 'own function'}()" for match in _PYTHON_FUNCTION.finditer(analyzed)}
    for text in moving_texts:
        if _HOUR.fullmatch(_content(text)):
            is_moving = _is_timestamp(text, analyzed, rows)
        else:
            is_moving = not _is_compared_as_text(text, analyzed)
        if is_moving:
            parts.add(text)
    if _QUERY.search(analyzed):
        parts.add("a query")
    return {"a session variable" if p == "variablereference()" else p for p in parts}


def _is_compared_as_text(text: str, analyzed: str) -> bool:
    """Return whether an analysed filter compares columns with a text, and converts it nowhere."""
    content = re.escape(_content(text))
    compared = rf"#\d+L? (?:[<=>]+ {content}|IN \([^()]*\))|{content} [<=>]+ (?=\w+#)"
    others, comparisons = re.subn(compared, "", analyzed)
    return comparisons > 0 and re.search(rf"(?<![\w#]){content}(?![\w#])", others) is None


def _is_timestamp(text: str, analyzed: str, rows: DataFrame) -> bool:
    """Return whether an analysed filter converts an hour to a timestamp."""
    hour = re.escape(_content(text))
    texts = "|".join(re.escape(name) for name, kind in rows.dtypes if kind == "string")
    converted = rf"cast\({hour} as timestamp\)|timestamp\w*\({hour}, None"
    # Spark 4 converts the limits of BETWEEN later.
    between = rf"\bbetween\((?!(?:{texts})#)[^\n]*[(, ]{hour}[,)]"
    return re.search(f"{converted}|{between}", analyzed) is not None
