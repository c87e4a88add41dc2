"""The verdict on each row of a batch, taken from the pass that writes the output.

The pass observes how many rows it read, and of each row that the model fails on two hashes and the
reason. So the rows for the quarantine are found again in the input without asking the model again.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as F

from dbx_aml._common.deadline import call_within
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import sql_identifier
from dbx_aml.scoring.guard import REASON
from dbx_aml.scoring.model_udf import RESULT
from dbx_aml.scoring.output_rows import IS_QUARANTINED
from dbx_aml.scoring.spark_errors import SPARK_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame

log = get_logger(__name__)

# Column of the rows that `find_quarantined` returns.
FOUND_REASON = "_dbx_aml_reason"
_HASH, _CHECK = "_dbx_aml_hash", "_dbx_aml_check"
# Spark delivers observed values when the write returns, or a moment later. Before Spark 4 it may
# wait for a query that never comes.
_OBSERVATION_TIMEOUT_S = 10.0
# Types that Spark does not hash.
_WITHOUT_HASH = re.compile(r"\b(map<|variant|interval|geometry|geography)")


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Verdicts that a pass over a batch observed.

    Args:
        rows_read: Rows of the batch.
        quarantined: Hashes and reason of each row that the model fails on.
    """

    rows_read: int
    quarantined: tuple[tuple[int, int, str], ...]


def can_hash(frame: DataFrame) -> bool:
    """Return whether Spark hashes every column of a frame."""
    return not any(_WITHOUT_HASH.search(f.dataType.simpleString()) for f in frame.schema.fields)


def observe_verdicts(results: DataFrame, columns: Sequence[str]) -> tuple[DataFrame, Observation]:
    """Return rows with the model's result, and what the query that reads them will observe.

    Observing also keeps Spark from moving a filter on the result below the model, which would run
    the model twice.

    Args:
        results: Rows with the model's result.
        columns: Columns that tell a row.
    """
    observation = Observation(f"dbx_aml_{uuid.uuid4().hex}")
    # Most rows share a few reasons, so a row has the hash of its reason.
    reason = f"'r', xxhash64({RESULT}.{REASON})"
    row = f"named_struct('h', {_hash(columns)}, 'c', {_check(columns)}, {reason})"
    text = f"named_struct({reason}, 'text', {RESULT}.{REASON})"
    # As text: not every version of Spark Connect delivers arrays.
    quarantined = F.expr(f"to_json(collect_list(IF({IS_QUARANTINED}, {row}, NULL)))")
    reasons = F.expr(f"to_json(collect_set(IF({IS_QUARANTINED}, {text}, NULL)))")
    frame = results.observe(
        observation,
        F.count(F.lit(1)).alias("rows"),
        quarantined.alias("quarantined"),
        reasons.alias("reasons"),
    )
    return frame, observation


def read_verdicts(observation: Observation) -> Verdicts | None:
    """Return what a query observed; None where Spark does not deliver it.

    A write runs several queries, and Spark may take the values from one that read no row.
    """
    try:
        values = call_within(lambda: dict(observation.get), _OBSERVATION_TIMEOUT_S)
        reasons = {row["r"]: row["text"] for row in json.loads(values["reasons"] or "[]")}
        rows = json.loads(values["quarantined"] or "[]")
        quarantined = tuple((row["h"], row["c"], reasons[row["r"]]) for row in rows)
        return Verdicts(rows_read=int(values["rows"]), quarantined=quarantined)
    except (*SPARK_ERRORS, TimeoutError, KeyError):
        log.debug("Spark delivered no observed values", exc_info=True)
        return None


def find_quarantined(rows: DataFrame, columns: Sequence[str], verdicts: Verdicts) -> DataFrame:
    """Return the rows of a batch that the model failed on, with the column `FOUND_REASON`.

    Rows that are equal in `columns` are all returned, though the model may have failed on some of
    them only: so the caller checks the number of rows.
    """
    reasons: dict[tuple[int, int], str] = {}
    for row_hash, check, reason in verdicts.quarantined:
        reasons.setdefault((row_hash, check), reason)
    found = rows.sparkSession.createDataFrame(
        [(row_hash, check, reason) for (row_hash, check), reason in reasons.items()],
        f"{_HASH} bigint, {_CHECK} int, {FOUND_REASON} string",
    )
    hashed = rows.withColumn(_HASH, F.expr(_hash(columns))).withColumn(
        _CHECK, F.expr(_check(columns))
    )
    return hashed.join(F.broadcast(found), [_HASH, _CHECK])


def _hash(columns: Sequence[str]) -> str:
    return f"xxhash64({', '.join(map(sql_identifier, columns))})"


def _check(columns: Sequence[str]) -> str:
    return f"hash({', '.join(map(sql_identifier, columns))})"
