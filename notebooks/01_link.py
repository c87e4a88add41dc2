# Databricks notebook source
# MAGIC %md
# MAGIC # 01 Link: say once which service tracks and which registers
# MAGIC
# MAGIC After this notebook plain MLflow code, in this session, goes where the link says. What is
# MAGIC not given here comes from `DBX_AML_*` variables, then from `config.json`: the one that Azure
# MAGIC ML's portal offers, with this project's values beside Azure ML's own. A wrong setting is an
# MAGIC error within seconds, and changes nothing. Any MLflow URI may stand for either service, so
# MAGIC this runs on a laptop too.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `config` | `/Volumes/main/ml/config.json` | no | the file; empty: as found |
# MAGIC | `mode` | `aml` | no | who tracks: `databricks`, `aml` or `dual` |
# MAGIC | `registry` | `databricks-uc` | no | or `databricks`, `aml`: who registers |
# MAGIC | `experiment` | `/Users/ana@contoso.com/flights` | no | a path, or Azure ML's name |
# MAGIC | `databricks_tracking_uri` | `databricks` | no | or any MLflow URI in its place |
# MAGIC | `aml_tracking_uri` | `azureml://...` | no | follows from the workspace; or any other |
# MAGIC
# MAGIC **Writes** nothing but MLflow's settings of this session. **Ends with** `mode`,
# MAGIC `tracking_uri`, `registry_uri` and `experiment`.

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
# MAGIC ## Every value, and who said it
# MAGIC Of each value the first of these counts: a widget here, a variable, the file. The widgets
# MAGIC are for this session only; for every session of everyone, put the values into the file.

# COMMAND ----------

link = dbx_aml.Link.load(**{name: widget(name) or None for name in NAMES})
said = [{"value": name, "said by": origin} for name, origin in link.origins.items()]
display(spark.createDataFrame(said, "value string, `said by` string"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Connect
# MAGIC Tracking and registry URI are both set: each has a default that depends on the other. Where
# MAGIC Azure ML is one of them, a token is proved and the workspace read first. Nobody is asked to
# MAGIC log in: a service principal, a workload or managed identity, a service credential of Unity
# MAGIC Catalog or the Azure CLI is used.

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
