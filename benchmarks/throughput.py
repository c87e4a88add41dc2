"""4 million rows: `score_table` against the documentation's snippet, and against the limit.

The limit is what no scoring can do without: a pass-through function (read, to Python and back,
write) plus the model's own time in one process a core. A second line has the limit of writing the
same columns: `_scoring`, which the snippet does not give, are seven more values in every row.
"""

from __future__ import annotations

import statistics

from benchmarks.common import (
    ROUNDS,
    Figure,
    measure_dbx_aml,
    medians,
    model,
    pass_through,
    predict_only,
    rows_table,
    session,
    snippet,
)

ROWS = 4_000_000


def run() -> list[Figure]:
    """Measure scoring and the snippet, and return the figures."""
    spark = session()
    table = rows_table(spark, ROWS, 8)
    figures = []
    for kind in ("linear", "lightgbm"):
        uri = model(kind)
        dbx_aml_s, snippet_s, through_s, same_s = medians(
            lambda uri=uri: measure_dbx_aml(spark, uri, table, "out_ours"),
            lambda uri=uri: snippet(spark, uri, table, "out_snippet"),
            lambda: pass_through(spark, table, "out_through"),
            lambda: pass_through(spark, table, "out_same", provenance=True),
        )
        predict = statistics.median(predict_only(uri, ROWS) for _ in range(ROUNDS))
        figures.append(
            Figure(
                f"{kind}, 4M rows",
                dbx_aml_s,
                snippet_s,
                "snippet",
                "not slower",
                dbx_aml_s <= snippet_s,
            )
        )
        for name, base in (("limit", through_s), ("limit with `_scoring`", same_s)):
            note = f"pass-through {base:.2f} s + predict {predict:.2f} s"
            limit, goal = base + predict, "at most 1.10x"
            met = dbx_aml_s <= 1.1 * limit
            figures.append(Figure(f"{kind}, 4M rows", dbx_aml_s, limit, name, goal, met, note))
    return figures
