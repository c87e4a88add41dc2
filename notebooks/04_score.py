# Databricks notebook source
# MAGIC %md
# MAGIC # 04 Score: a table in, a table out
# MAGIC
# MAGIC Each row of the input table that the model can score goes to the output table, with its
# MAGIC `prediction` and, in `_scoring`, the batch and the model version. A row that the model
# MAGIC cannot score goes to the quarantine table with the reason. Running this notebook again for
# MAGIC the same batch writes nothing twice. The widgets are the arguments of
# MAGIC `dbx_aml.score_table`, and `replay`; an empty widget means the default.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `models:/main.ml.delay@champion` | no | empty: `03_register` makes one |
# MAGIC | `segment_column` | `carrier` | no | column whose values choose the model |
# MAGIC | `segment_models` | `main.ml.models` | no | model of each segment: table or file |
# MAGIC | `input_table` | `flights` | no | table or view to score; empty: made-up flights |
# MAGIC | `source` | `table` | yes | `kafka`: a topic or an event hub, in the place of a table |
# MAGIC | `topic` | `flights` | for `kafka` | topic to score |
# MAGIC | `bootstrap_servers` | `ana.servicebus.windows.net:9093` | for `kafka` | hosts with ports |
# MAGIC | `connection_secret` | `ml/event-hub` | no | place of the login, for `kafka` |
# MAGIC | `output_table` | `flights_scored` | yes | table to write |
# MAGIC | `quarantine_table` | `flights_scored_quarantine` | no | default: as this example |
# MAGIC | `row_filter` | `month >= 10` | no | rows to score, as an SQL predicate |
# MAGIC | `output_columns` | `id, month` | no | input columns to keep; empty: all |
# MAGIC | `write_mode` | `append` | yes | or `incremental`, `merge`, `replace`, `follow` |
# MAGIC | `key_columns` | `id` | for `merge`, `follow` | columns that identify a row |
# MAGIC | `replace_where` | `month = 10` | no | for `replace`: rows of the output to replace |
# MAGIC | `challenger_uri` | `models:/main.ml.delay@b` | no | second model for the same rows |
# MAGIC | `checkpoint_location` | `/Volumes/main/ml/delay` | for a stream | its progress |
# MAGIC | `trigger` | `available-now` | yes | or the interval of a stream: `30 seconds` |
# MAGIC | `batch_id` | `2026-11-21` | no | empty: from the versions of table and model |
# MAGIC | `max_quarantined_rows` | `1%` | yes | a count or a percentage; more rows are an error |
# MAGIC | `environment` | `local` | yes | Python packages: `local`, the `model`'s own, or `auto` |
# MAGIC | `price_per_core_hour` | `0.12` | no | price of one core, for the cost in the plan |
# MAGIC | `replay` | `yes` | no | whether to score the batch again, to compare; default: `no` |
# MAGIC | `tracking_uri` | `databricks` | no | MLflow server of the run; empty: from the link |
# MAGIC | `registry_uri` | `databricks-uc` | no | MLflow registry; empty: from the link |
# MAGIC
# MAGIC **Writes** the output table and the quarantine table. **Ends with** the result of
# MAGIC `score_table`.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("model_uri", "")
dbutils.widgets.text("segment_column", "")
dbutils.widgets.text("segment_models", "")
dbutils.widgets.text("input_table", "")
dbutils.widgets.dropdown("source", "table", ["table", "kafka"])
dbutils.widgets.text("topic", "")
dbutils.widgets.text("bootstrap_servers", "")
dbutils.widgets.text("connection_secret", "")
dbutils.widgets.text("output_table", "flights_scored")
dbutils.widgets.text("quarantine_table", "")
dbutils.widgets.text("row_filter", "")
dbutils.widgets.text("output_columns", "")
dbutils.widgets.text("tracking_uri", "")
dbutils.widgets.text("registry_uri", "")

# COMMAND ----------

WRITE_MODES = ["append", "incremental", "merge", "replace", "follow"]
dbutils.widgets.dropdown("write_mode", "append", WRITE_MODES)
dbutils.widgets.text("key_columns", "")
dbutils.widgets.text("replace_where", "")
dbutils.widgets.text("challenger_uri", "")
dbutils.widgets.text("checkpoint_location", "")
dbutils.widgets.text("trigger", "available-now")
dbutils.widgets.text("batch_id", "")
dbutils.widgets.text("max_quarantined_rows", "1%")
dbutils.widgets.text("environment", "local")
dbutils.widgets.text("price_per_core_hour", "")
dbutils.widgets.dropdown("replay", "no", ["no", "yes"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Model and table
# MAGIC If the widget `model_uri` is empty, this cell runs `03_register` as a separate notebook,
# MAGIC which trains and registers a model. Its exit value has a model URI with the alias.

# COMMAND ----------

SERVERS = {name: widget(name) for name in ["tracking_uri", "registry_uri"]}
model_uri = (
    widget("model_uri")
    or json.loads(dbutils.notebook.run("./03_register", 3600, SERVERS))["model_uri"]
)
samples = {"table": lambda: dbx_aml.sample_flights(spark), "kafka": str}
input_table = widget("input_table") or samples[widget("source")]()
arguments = {**dbutils.widgets.getAll(), "model_uri": model_uri, "input_table": input_table}
replays = arguments.pop("replay") == "yes"

# COMMAND ----------

# MAGIC %md
# MAGIC ## Plan
# MAGIC A dry run writes nothing. It times the model on some rows and says what the job will cost.

# COMMAND ----------

from dbx_aml.scoring.views import (
    agreement_with_challenger,
    plan_of_dry_run,
    predictions_by_day,
    quarantine_reasons,
    replay_of_batch,
    sample_of_output,
)

planned = dbx_aml.score_table(**arguments, dry_run=True, spark=spark)
display(plan_of_dry_run(planned, spark))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Score
# MAGIC `score_table` resolves the alias to a version once and binds columns by name. It writes
# MAGIC each row exactly once, to the output table or to the quarantine table, even if the job is
# MAGIC killed and started again.

# COMMAND ----------

result = dbx_aml.score_table(**arguments, spark=spark)
print(
    f"{result.status}: {result.rows_read:,} rows read, {result.rows_scored:,} scored, "
    f"{result.rows_quarantined:,} in quarantine, {result.seconds:.1f} s"
)
print(f"{result.model_uri} -> {result.output_table}, batch {result.batch_id or 'none'}")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Sample of the scored rows

# COMMAND ----------

display(sample_of_output(result, spark, rows=3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Predictions by day
# MAGIC The day comes from the first date or timestamp column of the table, or else is the day of
# MAGIC scoring. The line is the mean, the band holds 8 of 10 predictions. If the level moves, the
# MAGIC input rows or the model have changed.

# COMMAND ----------

import matplotlib.pyplot as plt

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
# MAGIC ## Quarantined rows by reason
# MAGIC A cancelled flight has no departure delay, and this model needs one.

# COMMAND ----------

display(quarantine_reasons(result, spark))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Agreement with the challenger
# MAGIC The widget `challenger_uri` names a second model. It predicts the same rows in the same
# MAGIC pass, in the column `_challenger`. Without a challenger this table is empty.

# COMMAND ----------

display(agreement_with_challenger(result, spark))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Replay
# MAGIC The ledger has the model version and the version of the input of each batch. So the same
# MAGIC rows can be scored again and compared: the predictions must be equal. It takes as long as
# MAGIC scoring. If the widget `replay` is `no`, this table is empty.

# COMMAND ----------

display(replay_of_batch(result, spark, SERVERS, replays=replays))

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result.to_dict()))
