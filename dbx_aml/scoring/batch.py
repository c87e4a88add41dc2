"""Score one set of rows: good ones into the output, bad ones into the quarantine, once.

A batch is committed to the output first, in one transaction that carries its id; then, if it
had bad rows, to the quarantine, in one with the same id. Whoever starts the same batch again
reads the output's history: a batch that is there is never written again, and where its rows
are fewer than the input's, the rest is looked for in the quarantine and added if the first
attempt died in between.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F

from dbx_aml._common.errors import ScoringError
from dbx_aml.scoring.column_binding import quote
from dbx_aml.scoring.delta_table import SPARK_ERRORS, Commit, Table
from dbx_aml.scoring.delta_write import NothingScoredError, create, merge, options, save
from dbx_aml.scoring.model_udf import Scorer
from dbx_aml.scoring.resolved_request import Batch
from dbx_aml.scoring.spark_settings import larger_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

log = logging.getLogger(__name__)

# A write's own commit is among the newest, even where other jobs write to the same table.
_LATEST_COMMITS = 20
# Seconds; the counts are there when the write returns, or a moment later.
_OBSERVATION_S = 10.0

# Returns a batch's rows as of a version of the input table.
Read = Callable[[int | None], "DataFrame"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of a batch; `written` is false if an earlier attempt had done it all."""

    scored: int
    quarantined: int
    output_version: int | None
    written: bool
    commit: dict[str, Any]


def publish(scorer: Scorer, read: Read, batch: Batch) -> Counts:
    """Score rows into the output and the quarantine, unless this batch is there already.

    Raises:
        ScoringError: The model fails on every row (nothing is written then), or a table
            cannot be written.
    """
    output = Table(scorer.recipe.output_table)
    exists = output.exists(scorer.spark)
    rows = read(batch.input_version)
    everything = scorer.recipe.max_quarantined_rows.everything
    # A first write that fails would leave a folder behind, and a model server hides the reason.
    strict = exists and not everything and scorer.recipe.env_manager == "local"
    # Looking, trying and planning are small queries that mostly wait: at once, not in turn.
    with ThreadPoolExecutor(1) as pool:
        arranging = pool.submit(scorer.arranged, rows)
        # A stream hands over only what it has not done; Delta knows the rare one it has.
        if exists and scorer.recipe.write_mode != "incremental":
            done = _find(output.commits(scorer.spark), batch)
            if done is not None:
                return _complete(scorer, read, batch, done)
        if not strict and not everything:
            scorer.report("trying the model")
            scorer.try_on(rows)
        scorer.prepare(strict=strict)
        arranged, batch_rows = arranging.result()
    total = _check_keys(scorer, rows) if scorer.recipe.write_mode == "merge" else None
    scorer.report("scoring")
    with larger_batches(arranged.sparkSession, batch_rows):
        try:
            commit, bad = _write_good(scorer, rows, arranged, batch, exists, total, strict)
        except NothingScoredError as err:
            scorer.need_a_good_row(rows, str(err))
            commit, bad = _write_good(scorer, rows, arranged, batch, exists, total)
    if commit is None:
        # Delta knows the transaction of a commit older than those looked at.
        done = _find(output.commits(scorer.spark, limit=None), batch)
        if done is None:
            raise ScoringError(
                f"batch must be written once: got {batch.id!r}, which the output table "
                "holds without its commit in the history; pass another batch_id"
            )
        return _complete(scorer, read, batch, done)
    if bad:
        scorer.report("setting bad rows aside")
        bad = _write_bad(scorer, rows, batch)
    return Counts(
        scored=commit.rows,
        quarantined=bad,
        output_version=commit.version,
        written=True,
        commit=commit.batch,
    )


def _complete(scorer: Scorer, read: Read, batch: Batch, done: Commit) -> Counts:
    """Add the quarantine's part of a batch whose output is committed, if it is missing.

    With the rows and the model of that commit: the table may have grown since, and the
    alias may have moved.
    """
    for name in ("input_table", "row_filter"):
        if done.batch.get(name) != _about(scorer, batch)[name]:
            raise ScoringError(
                f"batch_id must name one set of rows: got {batch.id!r}, which the output "
                f"holds for {name} {done.batch.get(name)!r}; pass another batch_id"
            )
    quarantine = Table(scorer.recipe.quarantine_table)
    held = None
    if quarantine.exists(scorer.spark):
        held = _find(quarantine.commits(scorer.spark), batch)
    bad = held.rows if held else 0
    written = False
    batch = replace(batch, input_version=done.batch.get("input_version"))
    rows = read(batch.input_version)
    if held is None and rows.count() > done.rows:
        scorer.report("setting bad rows aside")
        if done.batch.get("model_uri") != scorer.model.uri:
            recipe = replace(scorer.recipe, model_uri=str(done.batch["model_uri"]))
            scorer = Scorer(scorer.spark, recipe, scorer.report)
        bad, written = _write_bad(scorer, rows, batch), True
    return Counts(
        scored=done.rows,
        quarantined=bad,
        output_version=done.version,
        written=written,
        commit=done.batch,
    )


def _check_keys(scorer: Scorer, rows: DataFrame) -> int:
    """Return the number of rows; refuse two with the same key."""
    keys = [F.col(quote(name)) for name in scorer.recipe.key_columns]
    counted = rows.groupBy(*keys).agg(F.count(F.lit(1)).alias("n"))
    example = F.max_by(F.to_json(F.struct(*keys)), "n")
    total, most, which = counted.agg(F.sum("n"), F.max("n"), example).collect()[0]
    if most is not None and most > 1:
        raise ScoringError(
            f"key_columns must name each input row once: got {most} rows with {which}; "
            "add a column to the key or remove the duplicates"
        )
    return int(total or 0)


def _write_good(
    scorer: Scorer,
    rows: DataFrame,
    arranged: DataFrame,
    batch: Batch,
    exists: bool,
    total: int | None,
    strict: bool = False,
) -> tuple[Commit | None, int]:
    """Commit the good rows; return the commit, or None if Delta had it, and the bad rows."""
    output = Table(scorer.recipe.output_table)
    frame, seen = scorer.good(arranged, batch, strict=strict)
    about = {**_about(scorer, batch), "attempt": uuid.uuid4().hex}
    if not exists and (output.path is None or scorer.recipe.write_mode == "merge"):
        # A first write that dies leaves files in the folder of a named table, where none
        # can be created any more: so it is created empty before.
        create(scorer.spark, output, frame.schema)
    if scorer.recipe.write_mode == "merge":
        affected = merge(scorer, output, frame, batch, about)
        if affected is None:
            return None, 0
        version = output.version(scorer.spark)
        merged = Commit(version=version or 0, rows=affected, batch=about)
        return merged, int(total or 0) - affected
    mode = "overwrite" if scorer.recipe.write_mode == "replace" else "append"
    writer = options(frame.write, batch, about).mode(mode)
    if scorer.recipe.replace_where:
        writer = writer.option("replaceWhere", scorer.recipe.replace_where)
    save(scorer.spark, writer, output, frame.schema, exists)
    latest = output.commits(scorer.spark, _LATEST_COMMITS)
    commit = next((c for c in latest if c.batch.get("attempt") == about["attempt"]), None)
    if commit is None:
        return None, 0
    bad = _observed(seen).get("bad")
    return commit, rows.count() - commit.rows if bad is None else int(bad)


def _write_bad(scorer: Scorer, rows: DataFrame, batch: Batch) -> int:
    quarantine = Table(scorer.recipe.quarantine_table)
    frame = scorer.bad(rows, batch)
    about = {**_about(scorer, batch), "attempt": uuid.uuid4().hex}
    exists = quarantine.exists(scorer.spark)
    if not exists and quarantine.path is None:
        create(scorer.spark, quarantine, frame.schema)
    save(
        scorer.spark,
        options(frame.write, batch, about).mode("append"),
        quarantine,
        frame.schema,
        exists,
    )
    held = _find(quarantine.commits(scorer.spark), batch)
    return held.rows if held else 0


def _about(scorer: Scorer, batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "app_id": batch.app_id,
        "model_uri": scorer.model.uri,
        "model_name": scorer.model.name,
        "model_version": scorer.model.version,
        "model_run_id": scorer.model.run_id,
        "input_table": scorer.recipe.input_table,
        "input_version": batch.input_version,
        "row_filter": scorer.recipe.row_filter,
    }


def _find(commits: list[Commit], batch: Batch) -> Commit | None:
    return next((c for c in commits if c.batch.get("batch_id") == batch.id), None)


def _observed(seen: Observation) -> dict[str, Any]:
    """Return what was observed, or nothing where Spark does not say.

    A write runs several queries, and Spark may take the counts from one that saw no row
    (`replaceWhere` is such a write), or, before Spark 4, wait for one that never comes.
    """
    found: dict[str, Any] = {}

    def ask() -> None:
        try:
            found.update(seen.get)
        except SPARK_ERRORS:
            log.debug("observed nothing", exc_info=True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_OBSERVATION_S)
    return found
