# Databricks notebook source
# MAGIC %md
# MAGIC # Late flights of a month
# MAGIC
# MAGIC | widget | example | meaning |
# MAGIC |---|---|---|
# MAGIC | `input_table` | `main.flights.arrivals` | table with `month` and `delay` |
# MAGIC | `month` | `10` | number of the month |

# COMMAND ----------

# MAGIC %run ./_names

# COMMAND ----------

dbutils.widgets.text("input_table", "")
dbutils.widgets.text("month", "1")
month = int(dbutils.widgets.get("month"))

# COMMAND ----------

flights = spark.table(dbutils.widgets.get("input_table")).where(F.col("month") == month)
late = flights.where(F.col("delay") >= LATE_MINUTES)
display(late)

# COMMAND ----------

dbutils.notebook.exit(str(late.count()))
