# Databricks notebook source
# MAGIC %md
# MAGIC # Names that the other notebooks use
# MAGIC
# MAGIC Run this notebook with `%run ./_setup`, alone in its cell. From another folder, use
# MAGIC `%run /Workspace/<folder of the notebooks>/_setup`. The notebook connects, so that plain
# MAGIC MLflow code uses the services of the link, and defines the names below. It installs nothing:
# MAGIC the packages come from the cluster or the job.
# MAGIC
# MAGIC | name | meaning |
# MAGIC |---|---|
# MAGIC | `json` | Python's module, for the exit value of a notebook |
# MAGIC | `mlflow` | MLflow of this cluster |
# MAGIC | `dbx_aml` | the package of this project |
# MAGIC | `link` | the settings from `DBX_AML_*` variables and `config.json` |
# MAGIC | `connection` | the applied link, with tracking URI and registry URI |
# MAGIC | `status` | link, origins and versions as a table; a failed init script is red |
# MAGIC | `widget(name)` | the text of a widget, without blanks around it |
# MAGIC | `experiment_path(name)` | the path of an experiment in the user's home folder |

# COMMAND ----------

import json  # noqa: F401 - for the notebooks that run this one

import mlflow  # noqa: F401

import dbx_aml

experiment_path = dbx_aml.experiment_path

# COMMAND ----------


def widget(name):
    return dbutils.widgets.get(name).strip()


# COMMAND ----------

link = dbx_aml.Link.load()
connection = dbx_aml.connect(link)

# COMMAND ----------

status = dbx_aml.status(connection)
status
