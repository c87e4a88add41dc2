# Databricks notebook source
# MAGIC %md
# MAGIC # 05 Serve: the model behind Azure ML's scoring server
# MAGIC
# MAGIC Azure ML builds an environment for six minutes before it starts a model, and only then tells
# MAGIC that a package is missing. This notebook starts Azure ML's own scoring server on this
# MAGIC machine first, with the environment and the scoring script of a deployment. It needs the
# MAGIC extra `serve` of this package, and a package index.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `model_uri` | `models:/main.ml.delay@champion` | no | empty: `03_register` makes one |
# MAGIC | `registry` | `aml` | no | registry of the model; empty: the one of the link that has it |
# MAGIC | `endpoint` | `delay` | no | endpoint to deploy to; empty: nothing is deployed |
# MAGIC | `traffic` | `10` | no | percent of the requests for the deployment; empty: 100 |
# MAGIC
# MAGIC **Writes** an environment in the cache folder of this user, and a deployment if the widget
# MAGIC `endpoint` names one. **Ends with** `model_uri`, `environment`, `ready_after_s`, `rows` and
# MAGIC `difference` of the answers, and `traffic` by deployment.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("model_uri", "")
dbutils.widgets.text("registry", "")
dbutils.widgets.text("endpoint", "")
dbutils.widgets.text("traffic", "")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Model
# MAGIC If the widget `model_uri` is empty, this cell runs `03_register` as a separate notebook,
# MAGIC which trains and registers a model with an input example.

# COMMAND ----------

model_uri = (
    widget("model_uri") or json.loads(dbutils.notebook.run("./03_register", 3600))["model_uri"]
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Try
# MAGIC `try_endpoint` resolves the alias once, and builds the environment once for the same
# MAGIC packages. The server ends with the block. The answers for the model's input example are
# MAGIC compared with `pyfunc.predict` in the same environment.

# COMMAND ----------

from dbx_aml.serving.answer_comparison import compare_answers

with dbx_aml.try_endpoint(model_uri, registry=widget("registry") or None) as endpoint:
    rows = endpoint.input_example
    answers = endpoint.score(rows)
    comparison = compare_answers(endpoint)[0]

# COMMAND ----------

display(rows.assign(answer=[str(answer) for answer in answers]))

# COMMAND ----------

environment = endpoint.environment.environment
print(
    f"{endpoint.model_uri} answered after {endpoint.start_s:.1f} s, then in "
    f"{comparison.milliseconds:.1f} ms a request, with Python {environment.python} and "
    f"{environment.package_count} packages"
)
print(comparison.difference or "the answers are equal to pyfunc.predict")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Deploy
# MAGIC `deploy_model` sends the same environment and the same script to Azure ML, waits about six
# MAGIC minutes, scores a row, and moves traffic. Without an endpoint this cell only says so.

# COMMAND ----------

names = [name for name in [widget("endpoint")] if name and not comparison.difference]
percent = int(widget("traffic") or 100)
registry = widget("registry") or None
deployed = [
    dbx_aml.deploy_model(name, endpoint.model_uri, traffic=percent, registry=registry)
    for name in names
]
traffic = {item.name: item.traffic for item in deployed}
print(traffic or f"a deployment would have environment {environment.hash}")

# COMMAND ----------

result = {
    "model_uri": endpoint.model_uri,
    "environment": environment.hash,
    "ready_after_s": round(endpoint.start_s, 1),
    "rows": comparison.rows,
    "difference": comparison.difference,
    "traffic": traffic,
}

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
