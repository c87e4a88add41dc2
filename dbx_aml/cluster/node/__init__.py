"""Prepare a node: the init script runs this code straight from the wheel of the package.

`prepare` reads the link, adds the packages of the list (`requirements`, `packages`), writes
settings for Spark (`spark_environment`) and records the result (`marker`). Nothing is installed yet
at that time: the modules import only the standard library, `_common` and `link`.
"""
