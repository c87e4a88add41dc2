"""Requests of the stores for Azure ML: they stay at the host that was checked."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import MlflowHostCreds

from dbx_aml.tracking.azureml.mlflow_calls import send_request
from tests.support.http.redirecting_server import redirecting_server


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_to_another_host_is_an_error_and_not_followed(method: str) -> None:
    with redirecting_server() as (url, requests_elsewhere):
        content = {"params": {"run_id": "r"}} if method == "GET" else {"json": {"key": "value"}}
        with pytest.raises(MlflowException, match="got a redirect to 'localhost' for") as caught:
            send_request(
                lambda: MlflowHostCreds(url, token="token"), method, "/mlflow/runs/get", **content
            )
    assert requests_elsewhere == []
    assert f"{method} runs/get" in str(caught.value)
