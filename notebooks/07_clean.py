# Databricks notebook source
# MAGIC %md
# MAGIC # 07 Clean: what the toolkit has made, and how it goes
# MAGIC
# MAGIC Everything that `dbx_aml` makes carries its mark: endpoints, deployments, jobs, model
# MAGIC versions, mirrored runs, environments, tables. This notebook lists what has the mark, and
# MAGIC deletes it only if the widget `delete` has the number of the list.
# MAGIC
# MAGIC | widget | example | required | meaning |
# MAGIC |---|---|---|---|
# MAGIC | `schemas` | `main.ml` | no | schemas whose tables count, with commas |
# MAGIC | `paths` | `/Volumes/main/ml/files/scored` | no | paths of scored tables, with commas |
# MAGIC | `delete` | `7` | no | the number of listed things, to delete them; empty: only list |
# MAGIC
# MAGIC **Writes** nothing without `delete`. **Ends with** `names`, `in_use`, `problems` and the
# MAGIC number of things that were `deleted`.

# COMMAND ----------

# MAGIC %run ./_setup

# COMMAND ----------

dbutils.widgets.text("schemas", "")
dbutils.widgets.text("paths", "")
dbutils.widgets.text("delete", "")

# COMMAND ----------

# MAGIC %md
# MAGIC ## List
# MAGIC An endpoint with traffic, a model version with an alias, and a table that another table was
# MAGIC scored from are in use. This notebook leaves them alone.

# COMMAND ----------

import pandas as pd

from dbx_aml.serving.clean import delete_resources, find_marked_resources

schemas = [name.strip() for name in widget("schemas").split(",") if name.strip()]
paths = [path.strip() for path in widget("paths").split(",") if path.strip()]
plan = find_marked_resources(schemas=schemas, paths=paths, link=link, spark=spark)
listed = [*plan.resources, *plan.used_resources]

# COMMAND ----------

columns = ["kind", "name", "created_at", "detail", "usd_a_day", "usage"]
rows = [[str(getattr(item, name) or "") for name in columns] for item in listed]
display(pd.DataFrame(rows, columns=columns))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Delete
# MAGIC A failure does not stop the rest; run the notebook again to go on.

# COMMAND ----------

count = str(len(plan.resources))
results = delete_resources([item for item in plan.resources if widget("delete") == count])
for item in results:
    print(f"{item.state}: {item.resource.kind} {item.resource.name} {item.error}")

# COMMAND ----------

result = {
    "names": [item.name for item in plan.resources],
    "in_use": [item.name for item in plan.used_resources],
    "problems": list(plan.problems),
    "deleted": sum(item.state in ("deleted", "archived") for item in results),
}

# COMMAND ----------

dbutils.notebook.exit(json.dumps(result))
