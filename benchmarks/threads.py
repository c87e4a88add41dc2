"""A forest saved with `n_jobs=-1`, 1 million rows: one thread a task against a thread a core."""

from __future__ import annotations

from benchmarks.common import Figure, medians, model, ours, rows_table, session, snippet


def run() -> list[Figure]:
    """Measure both sides and return the figures."""
    spark = session()
    table, uri = rows_table(spark, 1_000_000, 8), model("forest")
    us, them = medians(
        lambda: ours(spark, uri, table, "out_ours"),
        lambda: snippet(spark, uri, table, "out_snippet"),
    )
    met = them >= 1.5 * us
    return [Figure("forest n_jobs=-1, 1M rows", us, them, "snippet", "1.5x faster", met)]
