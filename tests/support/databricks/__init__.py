"""A local stand-in of a Databricks workspace, for tests with the unmodified SDK and CLI.

It answers the REST API on loopback, keeps what it is told, and behaves as the platform does where
that matters: an edit restarts a running cluster and is refused in other states, a mask replaces
whole collections, libraries install later, an allowlist is replaced whole. Faults, permissions and
what an init script does are switched by a test.

Each part of the API is a module with a class that has `handlers()`; `service.py` lists them.
`python -m tests.support.databricks` starts one to try by hand.
"""

from tests.support.databricks.handle import TOKEN, USER, Databricks, databricks_service

__all__ = ["TOKEN", "USER", "Databricks", "databricks_service"]
