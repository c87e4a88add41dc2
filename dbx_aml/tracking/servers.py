"""MLflow tracking servers of a link: the host that MLflow calls, and a check that it answers."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from dbx_aml._common.deadline import call_within, time_limit
from dbx_aml._common.errors import LinkError
from dbx_aml._common.redact import redact, redact_uri
from dbx_aml._common.text import one_line
from dbx_aml.link.uris import is_databricks_uri
from dbx_aml.models.mlflow_client import create_client

_TIMEOUT_S = 5.0
_MAX_ERROR_CHARS = 240


def databricks_host(uri: str | None, timeout_s: float = _TIMEOUT_S) -> str:
    """Return the URL of the Databricks workspace that MLflow calls for a URI.

    Args:
        uri: "databricks", "databricks-uc", or either with "://<profile>".
        timeout_s: Longest time: MLflow may ask the host for its kind.

    Raises:
        LinkError: Databricks is not configured on this machine, or the host does not answer.
    """
    from mlflow.utils.databricks_utils import get_databricks_host_creds

    # The import takes seconds that are not the host's.
    with suppress(ImportError):
        import_module("databricks.sdk")
    try:
        host_creds = call_within(lambda: get_databricks_host_creds(uri), timeout_s)
    except TimeoutError:
        problem = f"no answer from its host in {timeout_s:.1f} s"
    except Exception as err:  # noqa: BLE001 - MLflow and databricks-sdk raise many classes
        problem = redact(one_line(err, _MAX_ERROR_CHARS))
    else:
        return str(host_creds.host)
    raise LinkError(
        f"Databricks must be set up for MLflow's {uri!r}: got {problem}; compare DATABRICKS_HOST "
        "and DATABRICKS_TOKEN, or set another MLflow URI as databricks_tracking_uri"
    )


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
