"""A forest saved with `n_jobs=-1`, 1 million rows: one thread a task against a thread a core."""

from __future__ import annotations

from benchmarks.common import Figure, measure_dbx_aml, medians, model, rows_table, session, snippet


def run() -> list[Figure]:
    """Measure scoring and the snippet, and return the figures."""
    spark = session()
    table, uri = rows_table(spark, 1_000_000, 8), model("forest")
    dbx_aml_s, snippet_s = medians(
        lambda: measure_dbx_aml(spark, uri, table, "out_ours"),
        lambda: snippet(spark, uri, table, "out_snippet"),
    )
    met = dbx_aml_s <= snippet_s
    return [Figure("forest n_jobs=-1, 1M rows", dbx_aml_s, snippet_s, "snippet", "not slower", met)]
