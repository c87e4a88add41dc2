# Databricks notebook source
# MAGIC %md
# MAGIC # 01 Link: say which service tracks runs and which service registers models
# MAGIC
# MAGIC After this notebook, plain MLflow code in this session uses the two services of the link.
# MAGIC For an empty widget the value comes from a `DBX_AML_*` variable, or else from
# MAGIC `config.json`: the file that Azure ML's portal offers, with this project's keys beside
# MAGIC Azure ML's own. A wrong setting raises an error within seconds and changes nothing. Any
# MAGIC MLflow URI can stand for either service, so this notebook also runs on a laptop.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `config` | `/Volumes/main/ml/config.json` | no | file to read; empty: search for it |
# MAGIC | `mode` | `aml` | no | who tracks: `databricks`, `aml` or `dual` |
# MAGIC | `registry` | `databricks-uc` | no | who registers; or `databricks`, `aml` |
# MAGIC | `experiment` | `/Users/ana@contoso.com/flights` | no | Databricks path or Azure ML name |
# MAGIC | `databricks_tracking_uri` | `databricks` | no | MLflow URI that stands for Databricks |
# MAGIC | `aml_tracking_uri` | `azureml://...` | no | MLflow URI that stands for Azure ML |
# MAGIC
# MAGIC **Writes** only MLflow's settings of this session. **Ends with** `mode`, `tracking_uri`,
# MAGIC `registry_uri` and `experiment`.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

NAMES = ["config", "mode", "registry", "experiment", "databricks_tracking_uri", "aml_tracking_uri"]

dbutils.widgets.text("config", "")
dbutils.widgets.text("mode", "")
dbutils.widgets.text("registry", "")
dbutils.widgets.text("experiment", "")
dbutils.widgets.text("databricks_tracking_uri", "")
dbutils.widgets.text("aml_tracking_uri", "")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Every value and its origin
# MAGIC A widget overrides a variable, and a variable overrides the file. Widgets apply to this
# MAGIC session only. To set a value for every session and every user, write it into the file.

# COMMAND ----------

link = dbx_aml.Link.load(**{name: widget(name) or None for name in NAMES})
origins = [{"name": name, "origin": origin} for name, origin in link.origins.items()]
display(spark.createDataFrame(origins, "name string, origin string"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Connect
# MAGIC `connect` sets MLflow's tracking URI and registry URI. If one of them is Azure ML,
# MAGIC `connect` first requests a token and reads the workspace. It never opens a login page: it
# MAGIC uses a service principal, a workload or managed identity, a service credential of Unity
# MAGIC Catalog, or the Azure CLI.

# COMMAND ----------

connection = dbx_aml.connect(link)
dbx_aml.status(connection)

# COMMAND ----------

result = {
    "mode": link.mode,
    "tracking_uri": connection.tracking_uri,
    "registry_uri": connection.registry_uri,
    "experiment": link.experiment,
}

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
