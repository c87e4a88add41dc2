# Databricks notebook source
# MAGIC %md
# MAGIC # Names that the other notebooks use
# MAGIC
# MAGIC `%run ./_setup`, alone in its cell, defines these names and does nothing else. The versions
# MAGIC of the packages come from the cluster or the job.
# MAGIC
# MAGIC | name | what it is |
# MAGIC |---|---|
# MAGIC | `json` | Python's module, for the value a notebook ends with |
# MAGIC | `mlflow` | MLflow, as it is on this cluster |
# MAGIC | `dbx_aml` | this project's package |
# MAGIC | `widget(name)` | the text of a widget, without blanks around it |

# COMMAND ----------

import json  # noqa: F401 - for the notebooks that run this one

import mlflow  # noqa: F401

import dbx_aml  # noqa: F401

# COMMAND ----------


def widget(name):
    return dbutils.widgets.get(name).strip()
