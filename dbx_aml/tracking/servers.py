"""The Databricks side of a link: is it set up, does it answer."""

from __future__ import annotations

from dbx_aml._common.deadline import call_within
from dbx_aml._common.errors import LinkError
from dbx_aml.link.uris import is_databricks_uri

LIMIT_S = 5.0


def databricks_host(uri: str | None, seconds: float = LIMIT_S) -> str:
    """Return the host that MLflow would call, from what is set up on this machine.

    Args:
        uri: "databricks", "databricks-uc", either with "://<profile>".
        seconds: How long it may take: MLflow may ask the host for its kind.

    Raises:
        LinkError: Nothing is set up, or the host does not answer.
    """
    from mlflow.utils.databricks_utils import get_databricks_host_creds

    try:
        creds = call_within(lambda: get_databricks_host_creds(uri), seconds)
    except TimeoutError:
        problem = f"no answer from its host in {seconds:.1f} s"
    except Exception as err:  # noqa: BLE001 - whatever MLflow cannot do without
        problem = _short(err)
    else:
        return str(creds.host)
    raise LinkError(
        f"Databricks must be set up for MLflow's {uri!r}: got {problem}; compare DATABRICKS_HOST "
        "and DATABRICKS_TOKEN, or set another MLflow URI as databricks_tracking_uri"
    )


def check_tracking_server(uri: str, seconds: float = LIMIT_S) -> str:
    """Search a tracking server's experiments for one; return the server.

    Raises:
        LinkError: It does not answer, or does not let the caller read.
    """
    from mlflow import MlflowClient

    found = databricks_host(uri, seconds) if is_databricks_uri(uri) else uri
    try:
        call_within(lambda: MlflowClient(uri).search_experiments(max_results=1), seconds)
    except TimeoutError:
        problem = f"nothing in {seconds:.1f} s"
    except Exception as err:  # noqa: BLE001 - whatever it is, it is the server's answer
        problem = _short(err)
    else:
        return found
    raise LinkError(
        f"MLflow server {found} must answer: got {problem}; compare its address and your login"
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:240] or type(error).__name__
