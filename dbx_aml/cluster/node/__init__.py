"""Prepare a node: the init script runs this code straight from the wheel of the package.

`prepare` reads the link, adds missing packages (`package_plan`, `package_changes`, `pip`), checks
that MLflow works with them (`verify`), writes settings for Spark (`spark_environment`) and records
the result (`marker`). Nothing is installed yet at that time: the modules import only the standard
library, `packaging`, `_common`, `link` and the list of runtimes.
"""
