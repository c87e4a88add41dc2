"""4 million rows: `score_table` against the documentation's snippet, and against the limit.

The limit is what no scoring can do without: a pass-through function (read, to Python and back,
write) plus the model's own time in one process a core.
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
    for kind, factor in (("linear", 1.10), ("lightgbm", 1.00)):
        uri = model(kind)
        dbx_aml_s, snippet_s, through_s = medians(
            lambda uri=uri: measure_dbx_aml(spark, uri, table, "out_ours"),
            lambda uri=uri: snippet(spark, uri, table, "out_snippet"),
            lambda: pass_through(spark, table, "out_through"),
        )
        predict_s = statistics.median(predict_only(uri, ROWS) for _ in range(ROUNDS))
        note = f"pass-through {through_s:.2f} s + predict {predict_s:.2f} s"
        for base_s, base, most, text in (
            (snippet_s, "snippet", factor, ""),
            (through_s + predict_s, "limit", 1.10, note),
        ):
            figures.append(
                Figure(
                    f"{kind}, 4M rows",
                    dbx_aml_s,
                    base_s,
                    base,
                    f"at most {most:.2f}x",
                    dbx_aml_s <= most * base_s,
                    text,
                )
            )
    return figures
