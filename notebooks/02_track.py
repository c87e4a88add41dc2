# Databricks notebook source
# MAGIC %md
# MAGIC # 02 Track: train a model of the arrival delay
# MAGIC
# MAGIC A scikit-learn pipeline predicts the arrival delay of a flight from values that are known
# MAGIC at take-off. Numbers and strings stay as they are in the table: the pipeline contains all
# MAGIC preprocessing. MLflow's autologging records parameters, metrics, the signature and the
# MAGIC model in the service that the link names. No cell of this notebook names that service.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `input_table` | `flights` | no | flights with their delays; empty: made-up flights |
# MAGIC | `row_filter` | `month <= 9` | yes | rows to train on, as an SQL predicate |
# MAGIC | `alpha` | `1000` | yes | regularization strength of the ridge regression |
# MAGIC | `tracking_uri` | `databricks` | no | MLflow server for the run; empty: from the link |
# MAGIC | `experiment` | `/Shared/flights` | no | experiment of the run; empty: from the link |
# MAGIC
# MAGIC **Writes** an MLflow run with the model and a plot. **Ends with** `run_id`, `model_uri`,
# MAGIC the number of `rows`, and two error metrics.

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
experiment = widget("experiment") and mlflow.set_experiment(widget("experiment"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rows
# MAGIC A cancelled flight has no delay, so this cell drops rows with nulls. It casts numbers to
# MAGIC double: a double column of the signature accepts a null at scoring time, an integer column
# MAGIC does not.

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
# MAGIC A ridge regression raises an error for a missing number, so a cancelled flight gets no
# MAGIC prediction. For an airport that is not in the training rows, all airport indicators are
# MAGIC zero.

# COMMAND ----------


def delay_model(alpha):
    columns = make_column_transformer(
        (StandardScaler(), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), STRINGS),
    )
    return make_pipeline(columns, Ridge(alpha=alpha))


# COMMAND ----------

# MAGIC %md
# MAGIC ## Error on the last month
# MAGIC Train without the last month, predict the last month, and compare with a simple baseline:
# MAGIC the arrival delay equals the departure delay. The metric is the mean absolute error in
# MAGIC minutes.

# COMMAND ----------

mlflow.sklearn.autolog(disable=True)  # an evaluation only, without a run
is_last = flights.month == flights.month.max()
past, last = flights[~is_last], flights[is_last]
evaluated = delay_model(float(widget("alpha"))).fit(past[NUMBERS + STRINGS], past[TARGET])
predicted = evaluated.predict(last)
metrics = {
    "last_month_mae_minutes": mean_absolute_error(last[TARGET], predicted),
    "last_month_mae_minutes_of_baseline": mean_absolute_error(last[TARGET], last.dep_delay),
}

# COMMAND ----------

# MAGIC %md
# MAGIC ## Residuals
# MAGIC Left: a flight on the red line has an exact prediction. Right: the distribution of the
# MAGIC errors; a narrow peak around zero is good.

# COMMAND ----------

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.scatter(predicted, last[TARGET], s=4, alpha=0.25, linewidths=0)
left.axline((0, 0), slope=1, color="tab:red", linewidth=1)
left.set(xlabel="predicted delay, minutes", ylabel="actual delay, minutes")
left.set(xlim=(-60, 180), ylim=(-60, 180))
edges = range(-60, 61, 5)
right.hist(last[TARGET] - predicted, bins=edges, alpha=0.7, label="model")
right.hist(last[TARGET] - last.dep_delay, bins=edges, histtype="step", label="baseline")
right.set(xlabel="actual minus predicted, minutes", ylabel="flights")
right.legend(frameon=False)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Final model
# MAGIC Train on every month and log the model. Every supported runtime can load the format
# MAGIC `cloudpickle`. The parameters `input_table` and `row_filter` describe the training rows; a
# MAGIC digest of all rows is not logged, because computing it takes long.

# COMMAND ----------

mlflow.sklearn.autolog(
    serialization_format="cloudpickle", log_datasets=False, log_input_examples=True, silent=True
)
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
print(f"{result['model_uri']} was trained on {result['rows']:,} flights")
print("mean error in the last month: {:.1f} minutes, baseline {:.1f}".format(*metrics.values()))
dbutils.jobs.taskValues.set("model_uri", result["model_uri"])  # for the next task of a job

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
