# Databricks notebook source
# MAGIC %md
# MAGIC # 03 Register: give the model a version and an alias
# MAGIC
# MAGIC The model of a run becomes the next version of a registered model, and the alias moves to
# MAGIC it. Jobs name the alias, so from their next start on they use this version. Run it again
# MAGIC and there is one version more.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `runs:/4f0e.../model` | no | of a run; empty: `02_track` trains one |
# MAGIC | `model_name` | `main.flights.arrival_delay` | yes | its name in the registry |
# MAGIC | `alias` | `champion` | yes | the alias that moves to the new version |
# MAGIC | `tracking_uri` | `databricks` | no | where the run is; empty: as the link says |
# MAGIC | `registry_uri` | `databricks-uc` | no | where to register; empty: as the link says |
# MAGIC
# MAGIC **Writes** a model version and an alias. **Ends with** `model_name`, `model_version`,
# MAGIC `alias`, `run_id` and the `model_uri` for jobs.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("model_uri", "")
dbutils.widgets.text("model_name", "arrival_delay")
dbutils.widgets.text("alias", "champion")
dbutils.widgets.text("tracking_uri", "")
dbutils.widgets.text("registry_uri", "")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The model
# MAGIC Without a model to register, `02_track` is run as a notebook of its own, which ends with
# MAGIC the URI of the model that it trained.

# COMMAND ----------

mlflow.set_tracking_uri(widget("tracking_uri") or mlflow.get_tracking_uri())
SAME = {"tracking_uri": widget("tracking_uri")}
model_uri = (
    widget("model_uri") or json.loads(dbutils.notebook.run("./02_track", 3600, SAME))["model_uri"]
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## A version, then the alias
# MAGIC One call makes the registered model or its next version, waits until it is ready, puts on
# MAGIC it where it came from, and moves the alias last: a job never sees half a version.

# COMMAND ----------

model_name, alias = widget("model_name"), widget("alias")
champion = dbx_aml.register_model(
    model_uri, model_name, alias=alias, registry_uri=widget("registry_uri") or None
)
display(spark.createDataFrame(list(champion.tags.items()), "tag string, value string"))

# COMMAND ----------

result = {
    "model_name": model_name,
    "model_version": str(champion.version),
    "alias": alias,
    "run_id": champion.run_id,
    "model_uri": f"models:/{model_name}@{alias}",
}
print(f"{result['model_uri']} is version {result['model_version']}, from run {result['run_id']}")

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
