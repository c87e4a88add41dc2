"""The flow of a user on each Databricks Runtime, with that runtime's own packages.

`environment` makes a Python with the packages of a runtime. `test_flow` prepares a node with it by
the init script, and runs `flow` there. `compatibility` makes docs/compatibility.md of the results.
"""
