# Databricks notebook source
# MAGIC %md
# MAGIC # 04 Score: a table in, a table out
# MAGIC
# MAGIC Every row of the input table that can be scored goes to the output table with its
# MAGIC `prediction` and, in `_scoring`, where that came from. A row that cannot be scored goes to
# MAGIC the quarantine table with the reason. The widgets are the arguments of
# MAGIC `dbx_aml.score_table`; an empty one is not given.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `models:/main.flights.delay@champion` | yes | an alias is pinned |
# MAGIC | `input_table` | `flights` | yes | table or view to score |
# MAGIC | `output_table` | `flights_scored` | yes | table to write |
# MAGIC | `quarantine_table` | `flights_bad` | no | empty: the output's name with `_quarantine` |
# MAGIC | `row_filter` | `month >= 10` | no | only these rows, an SQL predicate |
# MAGIC | `output_columns` | `id, month` | no | input columns to keep; empty: all |
# MAGIC | `write_mode` | `incremental` | yes | `append`, `incremental`, `merge` or `replace` |
# MAGIC | `key_columns` | `id` | for `merge` | what identifies a row |
# MAGIC | `replace_where` | `month = 10` | no | with `replace`: only these rows of the output |
# MAGIC | `checkpoint_location` | `/Volumes/main/ml/delay` | for `incremental` | what was scored |
# MAGIC | `batch_id` | `2026-11-21` | no | empty: from the input's version and the model's |
# MAGIC | `max_bad_rows` | `1%` | yes | a count or a percentage; beyond it the notebook fails |
# MAGIC | `env_manager` | `local` | yes | where the model's packages come from |
# MAGIC | `tracking_uri` | `databricks` | no | empty: as MLflow is set |
# MAGIC | `registry_uri` | `databricks-uc` | no | empty: as MLflow is set |
# MAGIC
# MAGIC **Writes** the output table and the quarantine table. **Ends with** the result of
# MAGIC `score_table`.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("model_uri", "models:/arrival_delay@champion")
dbutils.widgets.text("input_table", "flights")
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
dbutils.widgets.text("max_bad_rows", "1%")
dbutils.widgets.text("env_manager", "local")

# COMMAND ----------

from dbx_aml.scoring.look import reasons, some_rows

result = dbx_aml.score_table(**dbutils.widgets.getAll(), spark=spark)
print(
    f"{result.status}: {result.rows_read:,} rows read, {result.rows_scored:,} scored, "
    f"{result.rows_quarantined:,} set aside, in {result.seconds:.1f} s"
)
print(f"{result.model_uri} -> {result.output_table}, batch {result.batch_id}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Some scored rows

# COMMAND ----------

display(some_rows(result, spark, rows=3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rows set aside, by reason

# COMMAND ----------

display(reasons(result, spark))

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result.to_dict()))
