"""The queries that score rows: the columns that they read, and the runs of the model."""

import contextlib
import io

import pytest

from dbx_aml.models.model_uri import ModelUri
from dbx_aml.scoring.batch import batch_facts
from dbx_aml.scoring.bind import bind_request
from dbx_aml.scoring.delta_table import Table
from dbx_aml.scoring.output_rows import needed_columns, quarantined_rows, scored_rows
from dbx_aml.scoring.plan import Trigger, parse_quarantine_limit
from dbx_aml.scoring.request import ScoringRequest
from dbx_aml.scoring.resolve import resolve_request
from dbx_aml.scoring.verdicts import FOUND_REASON, Verdicts, find_quarantined, observe_verdicts

pytestmark = pytest.mark.spark


def plan_of(frame):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        frame.explain()
    return text.getvalue()


@pytest.mark.slow
def test_the_queries_read_only_the_columns_they_need_and_run_the_model_once(
    spark, delta_table, xy_model, output_table, tmp_path
):
    columns = ", ".join(f"{i} AS c{i}" for i in range(20))
    table = Table(delta_table(spark.sql(f"SELECT 1.0D AS x, 2.0D AS y, {columns}")))
    request = ScoringRequest(
        model_uri=ModelUri.parse(xy_model),
        tracking_uri="sqlite://",
        registry_uri="sqlite://",
        input_table=table,
        output_table=Table(output_table),
        quarantine_table=Table(output_table).sibling("quarantine"),
        row_filter=None,
        output_columns=("c3",),
        key_columns=(),
        write_mode="append",
        replace_where=None,
        checkpoint_location=None,
        trigger=Trigger(),
        batch_id=None,
        max_quarantined_rows=parse_quarantine_limit(0),
        environment="local",
        rescore=False,
        dry_run=False,
    )
    steps = []
    resolved = resolve_request(spark, request, tmp_path / "model", steps.append)
    bound = bind_request(spark, resolved, steps.append)
    facts = batch_facts(bound, "b", 1, (0, 0))
    rows = table.read(spark)
    needed = needed_columns(bound, rows)
    results, _ = observe_verdicts(bound.model_udf.with_result(needed), needed.columns)
    plan = plan_of(scored_rows(bound, results, facts))
    assert plan.count("ArrowEvalPython") == 1
    assert "ReadSchema: struct<x:double,y:double,c3:int>" in plan
    verdicts = Verdicts(rows_read=1, quarantined=((1, 2, "reason"),))
    found = find_quarantined(rows, needed.columns, verdicts)
    assert "ArrowEvalPython" not in plan_of(quarantined_rows(found, FOUND_REASON, facts))
