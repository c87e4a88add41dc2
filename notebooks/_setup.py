# Databricks notebook source
# MAGIC %md
# MAGIC # Names that the other notebooks use
# MAGIC
# MAGIC `%run ./_setup`, alone in its cell, defines these names; from another folder it is
# MAGIC `%run /Workspace/<where it is>/_setup`. After it, plain MLflow code tracks and registers as
# MAGIC the link says. The versions of the packages come from the cluster or the job.
# MAGIC
# MAGIC | name | what it is |
# MAGIC |---|---|
# MAGIC | `json` | Python's module, for the value a notebook ends with |
# MAGIC | `mlflow` | MLflow, as it is on this cluster |
# MAGIC | `dbx_aml` | this project's package |
# MAGIC | `link` | what `DBX_AML_*` variables and `config.json` say: who tracks, who registers |
# MAGIC | `connection` | the link in use: tracking URI, registry URI, pages to look at |
# MAGIC | `status` | link, origins and versions as a table; a failed init script is red |
# MAGIC | `widget(name)` | the text of a widget, without blanks around it |

# COMMAND ----------

import json  # noqa: F401 - for the notebooks that run this one

import mlflow  # noqa: F401

import dbx_aml

# COMMAND ----------


def widget(name):
    return dbutils.widgets.get(name).strip()


# COMMAND ----------

link = dbx_aml.Link.load()
connection = dbx_aml.connect(link)

# COMMAND ----------

status = dbx_aml.status(connection)
status
