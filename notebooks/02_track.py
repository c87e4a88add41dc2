# Databricks notebook source
# MAGIC %md
# MAGIC # 02 Track: train a model of the arrival delay
# MAGIC
# MAGIC A scikit-learn pipeline learns how late a flight arrives from what is known when it takes
# MAGIC off. Numbers and strings go in as they are in the table; the pipeline is the whole model.
# MAGIC MLflow's autologging records parameters, metrics, the signature and the model itself, in
# MAGIC the service that the link names. Nothing in this notebook says which one that is.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `input_table` | `flights` | no | flights with their delays; empty: made-up ones |
# MAGIC | `row_filter` | `month <= 9` | yes | the rows to learn from, an SQL predicate |
# MAGIC | `alpha` | `1000` | yes | how strongly the regression is held back |
# MAGIC | `tracking_uri` | `databricks` | no | where the run goes; empty: as the link says |
# MAGIC | `experiment` | `/Shared/flights` | no | its experiment; empty: as the link says |
# MAGIC
# MAGIC **Writes** one MLflow run with the model and a picture in it. **Ends with** its `run_id` and
# MAGIC `model_uri`, the number of rows, and how good the model is.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("input_table", "")
dbutils.widgets.text("row_filter", "month <= 9")
dbutils.widgets.text("alpha", "1000")
dbutils.widgets.text("tracking_uri", "")
dbutils.widgets.text("experiment", "")

# COMMAND ----------

import matplotlib.pyplot as plt
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

mlflow.set_tracking_uri(widget("tracking_uri") or mlflow.get_tracking_uri())
widget("experiment") and mlflow.set_experiment(widget("experiment"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rows
# MAGIC A cancelled flight has no delay to learn from, so rows with nulls are left out. Numbers
# MAGIC become doubles here: the signature then says double, and scoring can hand a null over.

# COMMAND ----------

NUMBERS = ["dep_delay", "distance", "hour"]
STRINGS = ["carrier", "origin", "dest"]
TARGET = "arr_delay"

input_table = widget("input_table") or dbx_aml.sample_flights(spark)
rows = spark.table(input_table).where(widget("row_filter"))
complete = rows.dropna(subset=[*NUMBERS, *STRINGS, TARGET])
doubles = [complete[name].cast("double").alias(name) for name in [*NUMBERS, TARGET]]
flights = complete.select("month", *doubles, *STRINGS).toPandas()
display(flights.head(5))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Model
# MAGIC A regression that raises on a missing number: it never guesses for a flight that did not
# MAGIC take off. An airport it has not seen counts as none.

# COMMAND ----------


def delay_model(alpha):
    columns = make_column_transformer(
        (StandardScaler(), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), STRINGS),
    )
    return make_pipeline(columns, Ridge(alpha=alpha))


# COMMAND ----------

# MAGIC %md
# MAGIC ## How good is it?
# MAGIC Train without the last month, predict the last month, and compare with the simplest guess:
# MAGIC it arrives as late as it left. Minutes of mean absolute error.

# COMMAND ----------

mlflow.sklearn.autolog(disable=True)  # only a test: no run of its own
is_last = flights.month == flights.month.max()
past, last = flights[~is_last], flights[is_last]
tried = delay_model(float(widget("alpha"))).fit(past[NUMBERS + STRINGS], past[TARGET])
predicted = tried.predict(last)
metrics = {
    "last_month_mae_minutes": mean_absolute_error(last[TARGET], predicted),
    "last_month_mae_minutes_of_guess": mean_absolute_error(last[TARGET], last.dep_delay),
}

# COMMAND ----------

# MAGIC %md
# MAGIC ## Where it is wrong
# MAGIC Left: a flight on the line was predicted to the minute. Right: how far off the others are;
# MAGIC the narrower and the more around zero, the better.

# COMMAND ----------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.scatter(predicted, last[TARGET], s=4, alpha=0.25, linewidths=0)
left.axline((0, 0), slope=1, color="tab:red", linewidth=1)
left.set(xlabel="predicted delay, minutes", ylabel="actual delay, minutes")
left.set(xlim=(-60, 180), ylim=(-60, 180))
edges = range(-60, 61, 5)
right.hist(last[TARGET] - predicted, bins=edges, alpha=0.7, label="model")
right.hist(last[TARGET] - last.dep_delay, bins=edges, histtype="step", label="simplest guess")
right.set(xlabel="actual minus predicted, minutes", ylabel="flights")
right.legend(frameon=False)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The model that is kept
# MAGIC Trained on every month. `cloudpickle` is what every supported runtime can read back; which
# MAGIC rows it learned from is two parameters instead of a digest of all of them.

# COMMAND ----------

mlflow.sklearn.autolog(serialization_format="cloudpickle", log_datasets=False, silent=True)
with mlflow.start_run(run_name="arrival_delay") as run:
    mlflow.log_params({"input_table": input_table, "row_filter": widget("row_filter")})
    model = delay_model(float(widget("alpha")))
    model.fit(flights[NUMBERS + STRINGS], flights[TARGET])
    mlflow.log_metrics(metrics)
    mlflow.log_figure(figure, "residuals.png")
mlflow.sklearn.autolog(disable=True)

# COMMAND ----------

result = {
    "run_id": run.info.run_id,
    "model_uri": f"runs:/{run.info.run_id}/model",
    "rows": len(flights),
    **metrics,
}
print(f"{result['model_uri']} learned from {result['rows']:,} flights")
print("minutes off in the last month: {:.1f}, simplest guess {:.1f}".format(*metrics.values()))
dbutils.jobs.taskValues.set("model_uri", result["model_uri"])  # for the next task of a job

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
