# Databricks notebook source
# MAGIC %md
# MAGIC # 06 Monitor: drift and quality of what was scored
# MAGIC
# MAGIC Each batch of a scored table is compared with the rows that trained the model, and its
# MAGIC predictions with the labels. The numbers go to tables with the column names of Databricks'
# MAGIC data profiling, and to a page. A batch is computed once: the next run reads only new
# MAGIC batches. The widgets are the arguments of `dbx_aml.monitor_table`.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `output_table` | `flights_scored` | no | table to monitor; empty: `04_score` makes one |
# MAGIC | `input_table` | `flights` | no | table of the training rows; empty: made-up flights |
# MAGIC | `row_filter` | `month <= 9` | yes | training rows, as an SQL predicate |
# MAGIC | `baseline_table` | `flights_training` | yes | table to keep the training rows in |
# MAGIC | `label` | `arr_delay` | no | column of the labels; empty: no quality |
# MAGIC | `label_table` | `arrivals` | no | table of the labels; empty: the output table |
# MAGIC | `key` | `id` | with `label_table` | column of both tables that identifies a row |
# MAGIC | `thresholds` | `{"psi": 0.2}` | yes | largest distances and errors, as JSON |
# MAGIC | `page` | `drift.html` | yes | file of the page |
# MAGIC
# MAGIC **Writes** the baseline table once, the tables `<output>_profile_metrics`,
# MAGIC `<output>_drift_metrics` and `<output>_monitor_baseline`, and the page. **Ends with** the
# MAGIC number of `batches`, the `rows` of the newest one, `psi` by column, the columns that
# MAGIC `drifted`, and the `quality` of the predictions.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("output_table", "")
dbutils.widgets.text("input_table", "")
dbutils.widgets.text("row_filter", "month <= 9")
dbutils.widgets.text("baseline_table", "flights_training")
dbutils.widgets.text("label", "arr_delay")
dbutils.widgets.text("label_table", "")
dbutils.widgets.text("key", "")
dbutils.widgets.text("thresholds", '{"psi": 0.2}')
dbutils.widgets.text("page", "drift.html")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Baseline
# MAGIC The training rows are the baseline. Each batch has another month and other flight numbers,
# MAGIC so the baseline has no such columns. The first run keeps the rows; later runs find them.

# COMMAND ----------

output_table = (
    widget("output_table") or json.loads(dbutils.notebook.run("./04_score", 3600))["output_table"]
)
input_table = widget("input_table") or dbx_aml.sample_flights(spark)
training = spark.table(input_table).where(widget("row_filter"))
baseline = training.drop("year", "month", "time_hour", "flight", "tailnum")
baseline.write.mode("ignore").saveAsTable(widget("baseline_table"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Drift and quality
# MAGIC A population stability index (PSI) of 0 means the same distribution as in the training rows,
# MAGIC above 0.2 a large change. A batch of fewer than 1,000 rows is never called drift. The labels
# MAGIC are joined by the key; labels that come later fill older batches.

# COMMAND ----------

result = dbx_aml.monitor_table(
    output_table,
    widget("baseline_table"),
    **{name: widget(name) or None for name in ("label", "label_table", "key")},
    thresholds=json.loads(widget("thresholds")),
    page=widget("page"),
    spark=spark,
)
print(f"{result.windows} batches, {result.rows:,} rows in the newest, {result.seconds:.1f} s")
for alert in result.alerts:
    print(f"{alert.column_name}: {alert.threshold} {alert.value:.2f}, limit {alert.limit}")
for name, value in result.quality.items():
    print(f"{name} {value:.3f} in the batch of {result.quality_window:%Y-%m-%d %H:%M}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Drift of each batch
# MAGIC One line for each column and batch, the largest drift first. `avg_delta` is the change of
# MAGIC the mean since the training rows.

# COMMAND ----------

display(
    spark.table(result.drift_table)
    .where("granularity = 'batch' and drift_type = 'BASELINE' and slice_key is null")
    .where("column_name <> ':table'")
    .selectExpr(
        *("window.start as batch", "column_name", "dbx_aml_rows as rows"),
        *("round(population_stability_index, 3) as psi", "round(avg_delta, 2) as avg_delta"),
    )
    .orderBy("psi", ascending=False)
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Page
# MAGIC The same file can be sent to others: it needs no network.

# COMMAND ----------

from pathlib import Path

displayHTML(Path(widget("page")).read_text(encoding="utf-8"))

# COMMAND ----------

exit_value = {
    "batches": result.windows,
    "rows": result.rows,
    "baseline": result.baseline,
    "psi": {row["column_name"]: row["population_stability_index"] for row in result.drift},
    "drifted": sorted({alert.column_name for alert in result.alerts}),
    "quality": result.quality,
}

# COMMAND ----------

dbutils.notebook.exit(json.dumps(exit_value))
