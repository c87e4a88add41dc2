# Databricks notebook source
# MAGIC %md
# MAGIC # 03 Register: give the model a version and an alias
# MAGIC
# MAGIC The model of a run becomes the next version of a registered model, and the alias moves to
# MAGIC that version. Jobs name the alias, so each job uses the new version from its next start on.
# MAGIC Another run of this notebook adds another version.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `runs:/4f0e.../model` | no | model of a run; empty: `02_track` trains one |
# MAGIC | `model_name` | `main.flights.arrival_delay` | yes | name of the registered model |
# MAGIC | `alias` | `champion` | yes | alias that moves to the new version |
# MAGIC | `tracking_uri` | `databricks` | no | MLflow server of the run; empty: from the link |
# MAGIC | `registry_uri` | `databricks-uc` | no | MLflow registry; empty: from the link |
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
# MAGIC ## Model
# MAGIC If the widget `model_uri` is empty, this cell runs `02_track` as a separate notebook. Its
# MAGIC exit value has the URI of the model that it trained.

# COMMAND ----------

SERVER = {"tracking_uri": widget("tracking_uri")}
model_uri = (
    widget("model_uri") or json.loads(dbutils.notebook.run("./02_track", 3600, SERVER))["model_uri"]
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Version and alias
# MAGIC `register_model` creates the registered model or its next version, waits until the version
# MAGIC is ready, tags it with the run and the signature of the model, and moves the alias last. A
# MAGIC job never sees an incomplete version.

# COMMAND ----------

model_name, alias = widget("model_name"), widget("alias")
servers = {name: widget(name) or None for name in ["tracking_uri", "registry_uri"]}
champion = dbx_aml.register_model(model_uri, model_name, alias=alias, **servers)
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
