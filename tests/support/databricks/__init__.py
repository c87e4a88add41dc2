"""A local stand-in of a Databricks workspace, for tests with the unmodified SDK and CLI.

The stand-in answers the REST API on loopback, keeps its data in memory, and follows the rules of
the platform: an edit restarts a running cluster and is refused in other states, a mask replaces
whole collections, libraries install later, an allowlist is replaced as a whole. A test sets faults,
permissions and the effect of init scripts.

Each part of the API is a module with a class that has `handlers()`; `service.py` lists them.
"""

from tests.support.databricks.stand_in import TOKEN, USER, Databricks, databricks_service

__all__ = ["TOKEN", "USER", "Databricks", "databricks_service"]
