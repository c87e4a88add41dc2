# Databricks notebook source
# MAGIC %md
# MAGIC # Run the tests of this folder on Databricks
# MAGIC
# MAGIC A job runs this notebook, and fails if a test fails. The environment of the job has pytest
# MAGIC and chispa.
# MAGIC
# MAGIC | widget | example | meaning |
# MAGIC |---|---|---|
# MAGIC | `tests` | `test_flights.py` | files to run, with a blank between them; empty for all |

# COMMAND ----------

import sys

import pytest

sys.dont_write_bytecode = True  # a job may not write to its folder
dbutils.widgets.text("tests", "")

# COMMAND ----------

files = dbutils.widgets.get("tests").split()
exit_code = pytest.main(["-q", "-p", "no:cacheprovider", *files])
assert exit_code == 0, f"pytest ended with exit code {exit_code}"

# COMMAND ----------

dbutils.notebook.exit("passed")
