# Databricks notebook source
# MAGIC %md
# MAGIC # 04 Score: a table in, a table out
# MAGIC
# MAGIC Every row of the input table that can be scored goes to the output table with its
# MAGIC `prediction` and, in `_scoring`, where that came from. A row that cannot be scored goes to
# MAGIC the quarantine table with the reason. Run it again with the same batch, and nothing is
# MAGIC written twice. The widgets are the arguments of `dbx_aml.score_table`; an empty one is not
# MAGIC given.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `models:/main.ml.delay@champion` | no | empty: `03_register` makes one |
# MAGIC | `input_table` | `flights` | no | table or view to score; empty: made-up flights |
# MAGIC | `output_table` | `flights_scored` | yes | table to write |
# MAGIC | `quarantine_table` | `flights_scored_quarantine` | no | default: as this example |
# MAGIC | `row_filter` | `month >= 10` | no | only these rows, an SQL predicate |
# MAGIC | `output_columns` | `id, month` | no | input columns to keep; empty: all |
# MAGIC | `write_mode` | `incremental` | yes | `append`, `incremental`, `merge` or `replace` |
# MAGIC | `key_columns` | `id` | for `merge` | what identifies a row |
# MAGIC | `replace_where` | `month = 10` | no | with `replace`: only these rows of the output |
# MAGIC | `checkpoint_location` | `/Volumes/main/ml/delay` | for `incremental` | what was scored |
# MAGIC | `batch_id` | `2026-11-21` | no | empty: from the input's version and the model's |
# MAGIC | `max_quarantined_rows` | `1%` | yes | a count or a percentage; with more, it fails |
# MAGIC | `env_manager` | `local` | yes | where the model's packages come from |
# MAGIC | `tracking_uri` | `databricks` | no | empty: as the link says |
# MAGIC | `registry_uri` | `databricks-uc` | no | empty: as the link says |
# MAGIC
# MAGIC **Writes** the output table and the quarantine table. **Ends with** the result of
# MAGIC `score_table`.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("model_uri", "")
dbutils.widgets.text("input_table", "")
dbutils.widgets.text("output_table", "flights_scored")
dbutils.widgets.text("quarantine_table", "")
dbutils.widgets.text("row_filter", "")
dbutils.widgets.text("output_columns", "")
dbutils.widgets.text("tracking_uri", "")
dbutils.widgets.text("registry_uri", "")

# COMMAND ----------

WRITE_MODES = ["append", "incremental", "merge", "replace"]
dbutils.widgets.dropdown("write_mode", "append", WRITE_MODES)
dbutils.widgets.text("key_columns", "")
dbutils.widgets.text("replace_where", "")
dbutils.widgets.text("checkpoint_location", "")
dbutils.widgets.text("batch_id", "")
dbutils.widgets.text("max_quarantined_rows", "1%")
dbutils.widgets.text("env_manager", "local")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Model and table
# MAGIC Without a model to score with, `03_register` is run as a notebook of its own: it trains,
# MAGIC registers, and ends with a URI that names the alias.

# COMMAND ----------

SERVERS = {name: widget(name) for name in ["tracking_uri", "registry_uri"]}
model_uri = (
    widget("model_uri")
    or json.loads(dbutils.notebook.run("./03_register", 3600, SERVERS))["model_uri"]
)
input_table = widget("input_table") or dbx_aml.sample_flights(spark)
arguments = {**dbutils.widgets.getAll(), "model_uri": model_uri, "input_table": input_table}

# COMMAND ----------

# MAGIC %md
# MAGIC ## Score
# MAGIC Columns are bound by name, the alias is pinned to its version once, and good and bad rows
# MAGIC are each written exactly once, whatever happens to the job.

# COMMAND ----------

result = dbx_aml.score_table(**arguments, spark=spark)
print(
    f"{result.status}: {result.rows_read:,} rows read, {result.rows_scored:,} scored, "
    f"{result.rows_quarantined:,} set aside, in {result.seconds:.1f} s"
)
print(f"{result.model_uri} -> {result.output_table}, batch {result.batch_id}")

# COMMAND ----------

import matplotlib.pyplot as plt

from dbx_aml.scoring.views import predictions_by_day, quarantine_reasons, sample_of_output

# COMMAND ----------

# MAGIC %md
# MAGIC ## Some scored rows

# COMMAND ----------

display(sample_of_output(result, spark, rows=3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Predictions by day
# MAGIC By the table's first date or timestamp, or else by the day of scoring: the mean, and the
# MAGIC band in which 8 of 10 predictions are. A level that moves says that the input has changed,
# MAGIC or the model has.

# COMMAND ----------

days = predictions_by_day(result, spark).toPandas()
figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
axes.fill_between(days["day"], days["p10"], days["p90"], alpha=0.2, linewidth=0, label="8 of 10")
axes.plot(days["day"], days["mean"], marker=".", label="mean")
axes.set(ylabel="prediction", title=f"{days['rows'].sum():,} rows of {result.output_table}")
axes.legend(frameon=False)
figure.autofmt_xdate()
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rows set aside, by reason
# MAGIC A cancelled flight has no departure delay, and this model does not guess.

# COMMAND ----------

display(quarantine_reasons(result, spark))

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result.to_dict()))
