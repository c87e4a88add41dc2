"""Bring the package to a cluster and take it off again.

`client` asks Databricks, `found` finds a cluster, `part` is what it is given, `plan` and `detach`
think out a `change` that a person can look at, `attach` and `apply` make it, `record` remembers
what was there before, `outcome` reads what the init script did. Job clusters and serverless compute
have no cluster to attach: `snippet`.
"""
