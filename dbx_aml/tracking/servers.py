"""A check that a tracking server of a link answers."""

from __future__ import annotations

from dbx_aml._common.deadline import call_within, time_limit
from dbx_aml._common.errors import LinkError
from dbx_aml._common.redact import redact, redact_uri
from dbx_aml._common.text import one_line
from dbx_aml.link.uris import is_databricks_uri
from dbx_aml.models.mlflow_client import create_client, databricks_host

_TIMEOUT_S = 5.0
_MAX_ERROR_CHARS = 240


def check_tracking_server(tracking_uri: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Check that a tracking server answers a search for one experiment.

    Returns:
        URL of the Databricks workspace, or the server's own URI without its login.

    Raises:
        LinkError: The server does not answer, or refuses the caller.
    """
    import mlflow  # noqa: F401 - the import takes seconds that are not the server's

    def search_experiments() -> None:
        # The server's own error comes before the error of the thread that waits.
        with time_limit(0.9 * timeout_s):
            create_client(tracking_uri).search_experiments(max_results=1)

    is_databricks = is_databricks_uri(tracking_uri)
    server = databricks_host(tracking_uri, timeout_s) if is_databricks else redact_uri(tracking_uri)
    try:
        call_within(search_experiments, timeout_s)
    except TimeoutError:
        problem = f"no answer in {timeout_s:.1f} s"
    except Exception as err:  # noqa: BLE001 - MLflow and its stores raise many classes
        problem = redact(one_line(err, _MAX_ERROR_CHARS))
    else:
        return server
    raise LinkError(
        f"MLflow server {server} must answer: got {problem}; compare its address and your login"
    )
