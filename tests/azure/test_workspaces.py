"""The error for a 404 of the tracking server names what Azure Resource Manager does not have."""

from typing import Any

import pytest

from dbx_aml import AmlWorkspace
from dbx_aml._common.errors import LinkError, NotFoundError, ServiceError
from dbx_aml.azure.workspaces import check_workspace
from tests.support.azureml.workspace import Workspace

WORKSPACE = AmlWorkspace.from_tracking_uri(Workspace().tracking_uri)


class Client:
    """A client whose tracking server knows no workspace."""

    def __init__(self, properties: dict[str, Any] | Exception) -> None:
        self._properties = properties

    def post_query(self, url: str, body: Any) -> dict[str, Any]:
        raise NotFoundError("got 404 UserError", code="UserError")

    def get(self, url: str) -> dict[str, Any]:
        if isinstance(self._properties, Exception):
            raise self._properties
        return {"properties": self._properties}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"mlFlowTrackingUri": WORKSPACE.tracking_uri.replace("westeurope", "northeurope")},
            "tracking URI of workspace 'mlw-team' must have its host 'northeurope.api.azureml.ms': "
            "got 'westeurope.api.azureml.ms'; set DBX_AML_AML_TRACKING_URI to 'azureml://north",
        ),
        (NotFoundError("got 404", code="ResourceGroupNotFound"), "resource group 'rg-ml' must exi"),
        ({"mlFlowTrackingUri": WORKSPACE.tracking_uri}, "workspace 'mlw-team' must exist in "),
        (ServiceError("down"), "workspace 'mlw-team' must exist in "),
    ],
)
def test_a_404_names_what_does_not_exist_or_the_right_host(
    answer: dict[str, Any] | Exception, message: str
) -> None:
    with pytest.raises(LinkError) as caught:
        check_workspace(Client(answer), WORKSPACE)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
