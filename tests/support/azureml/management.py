"""The management endpoint: the cloud's metadata, the workspace and its resources."""

from collections.abc import Callable, Sequence

from tests.support.azureml.errors import service_error
from tests.support.azureml.permission import Permissions
from tests.support.azureml.resources import Refusal, Resources
from tests.support.azureml.token import Tokens
from tests.support.azureml.workspace import LOGIN_HOST, MANAGEMENT_HOST, TENANT_ID, Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

_PATH = (
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers"
    r"/Microsoft\.MachineLearningServices/workspaces/([^/]+)(/.*)?"
)
_READ = "Microsoft.MachineLearningServices/workspaces/experiments/read"


class Management:
    """Requests that clients send before they call the data plane."""

    def __init__(
        self,
        workspace: Workspace,
        tokens: Tokens,
        permissions: Permissions,
        resources: Resources,
        answers: Sequence[Callable[[Request, str], Response | None]],
    ) -> None:
        self._workspace = workspace
        self._tokens = tokens
        self._permissions = permissions
        self._resources = resources
        self._answers = answers

    def respond(self, request: Request) -> Response:
        """Answer a request to the management host."""
        if match_path("/metadata/endpoints", request.path):
            return json_response([_cloud()])
        problem = self._tokens.problem(request.headers.get("authorization", ""))
        if problem:
            code = "InvalidAuthenticationToken"
            return service_error(401, f"The access token is invalid. {problem}", code=code)
        if "api-version" not in request.query:
            code = "MissingApiVersionParameter"
            return service_error(400, "The api-version query parameter is required.", code=code)
        looked = self._resources.operation(request)
        if looked is not None:
            return looked
        match = match_path(_PATH, request.path)
        if not match:
            return service_error(404, "The resource type could not be found.", code="NotFound")
        missing = self.missing(match[1], match[2], match[3])
        if missing:
            return missing
        path = match[4] or ""
        if path.lower() == "/providers/microsoft.authorization/permissions":
            return json_response(self._permissions.to_dict())
        if path:
            return self._resource_response(request, path)
        if not self._permissions.allows(_READ):
            code = "AuthorizationFailed"
            message = f"The client does not have authorization to perform action '{_READ}'."
            return service_error(403, message, code=code)
        return json_response(self._resource())

    def _resource_response(self, request: Request, path: str) -> Response:
        try:
            self._resources.check_permission(request.method, path)
            for respond in self._answers:
                response = respond(request, path)
                if response is not None:
                    return response
        except Refusal as refusal:
            return refusal.response
        return service_error(404, "The resource type could not be found.", code="NotFound")

    def missing(self, subscription: str, group: str, name: str) -> Response | None:
        """Return the 404 for a scope that does not exist; None for the one workspace."""
        workspace = self._workspace
        if subscription.lower() != workspace.subscription_id.lower():
            message = f"The subscription '{subscription}' could not be found."
            return service_error(404, message, code="SubscriptionNotFound")
        if group.lower() != workspace.resource_group.lower():
            message = f"Resource group '{group}' could not be found."
            return service_error(404, message, code="ResourceGroupNotFound")
        if name.lower() != workspace.workspace_name.lower():
            resource = f"Microsoft.MachineLearningServices/workspaces/{name}"
            message = f"The Resource '{resource}' under resource group '{group}' was not found."
            return service_error(404, message, code="ResourceNotFound")
        return None

    def _resource(self) -> dict[str, object]:
        workspace = self._workspace
        return {
            "id": workspace.scope,
            "name": workspace.workspace_name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": workspace.region,
            "kind": "Default",
            "identity": {"type": "SystemAssigned", "tenantId": TENANT_ID},
            "sku": {"name": "Basic", "tier": "Basic"},
            "tags": {},
            "properties": {
                "friendlyName": workspace.workspace_name,
                "workspaceId": workspace.workspace_id,
                "tenantId": TENANT_ID,
                "discoveryUrl": f"https://{workspace.region}.api.azureml.ms/discovery",
                "mlFlowTrackingUri": workspace.tracking_uri,
                "provisioningState": "Succeeded",
                "publicNetworkAccess": "Enabled",
                "storageAccount": f"{workspace.scope.partition('/providers/')[0]}"
                f"/providers/Microsoft.Storage/storageAccounts/{workspace.storage_account}",
                "v1LegacyMode": False,
            },
        }


def _cloud() -> dict[str, object]:
    """The public cloud, with what azureml-mlflow reads of it."""
    management = "https://management.core.windows.net/"
    return {
        "name": "AzureCloud",
        "portal": "https://portal.azure.com",
        "authentication": {
            "loginEndpoint": f"https://{LOGIN_HOST}/",
            "audiences": [management, f"https://{MANAGEMENT_HOST}/"],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "media": "https://rest.media.azure.net",
        "graphAudience": "https://graph.windows.net/",
        "graph": "https://graph.windows.net/",
        "batch": "https://batch.core.windows.net/",
        "resourceManager": f"https://{MANAGEMENT_HOST}/",
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "sqlManagement": "https://management.core.windows.net:8443/",
        "gallery": "https://gallery.azure.com/",
        "suffixes": {
            "storage": "core.windows.net",
            "keyVaultDns": "vault.azure.net",
            "sqlServerHostname": "database.windows.net",
            "acrLoginServer": "azurecr.io",
            "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
            "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
        },
    }
