"""The management endpoint: the cloud's metadata, the workspace, what the caller may do there."""

from tests.support.azureml.errors import service_error
from tests.support.azureml.permission import Permissions
from tests.support.azureml.token import Tokens
from tests.support.azureml.workspace import LOGIN_HOST, MANAGEMENT_HOST, TENANT_ID, Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

_PATH = (
    r"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers"
    r"/Microsoft\.MachineLearningServices/workspaces/([^/]+)(/.*)?"
)
_READ = "Microsoft.MachineLearningServices/workspaces/experiments/read"


class Management:
    """What clients ask of it before they turn to the data plane."""

    def __init__(self, workspace: Workspace, tokens: Tokens, permissions: Permissions) -> None:
        self._workspace = workspace
        self._tokens = tokens
        self._permissions = permissions

    def answer(self, request: Request) -> Response:
        """Answer a request to the management host."""
        if match_path("/metadata/endpoints", request.path):
            return json_response([_cloud()])
        problem = self._tokens.problem(request.headers.get("authorization", ""))
        if problem:
            code = "InvalidAuthenticationToken"
            return service_error(401, f"The access token is invalid. {problem}", code=code)
        found = match_path(_PATH, request.path)
        if not found or request.method != "GET":
            return service_error(404, "The resource type could not be found.", code="NotFound")
        if "api-version" not in request.query:
            code = "MissingApiVersionParameter"
            return service_error(400, "The api-version query parameter is required.", code=code)
        missing = self.missing(found[1], found[2], found[3])
        if missing:
            return missing
        rest = (found[4] or "").lower()
        if rest == "/providers/microsoft.authorization/permissions":
            return json_response(self._permissions.as_json())
        if rest:
            return service_error(404, "The resource type could not be found.", code="NotFound")
        if not self._permissions.allows(_READ):
            code = "AuthorizationFailed"
            message = f"The client does not have authorization to perform action '{_READ}'."
            return service_error(403, message, code=code)
        return json_response(self._resource())

    def missing(self, subscription: str, group: str, name: str) -> Response | None:
        """Return the 404 for a scope that does not exist; None for the one workspace."""
        ours = self._workspace
        if subscription.lower() != ours.subscription_id.lower():
            message = f"The subscription '{subscription}' could not be found."
            return service_error(404, message, code="SubscriptionNotFound")
        if group.lower() != ours.resource_group.lower():
            message = f"Resource group '{group}' could not be found."
            return service_error(404, message, code="ResourceGroupNotFound")
        if name.lower() != ours.workspace_name.lower():
            resource = f"Microsoft.MachineLearningServices/workspaces/{name}"
            message = f"The Resource '{resource}' under resource group '{group}' was not found."
            return service_error(404, message, code="ResourceNotFound")
        return None

    def _resource(self) -> dict[str, object]:
        ours = self._workspace
        return {
            "id": ours.scope,
            "name": ours.workspace_name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": ours.region,
            "kind": "Default",
            "identity": {"type": "SystemAssigned", "tenantId": TENANT_ID},
            "sku": {"name": "Basic", "tier": "Basic"},
            "tags": {},
            "properties": {
                "friendlyName": ours.workspace_name,
                "workspaceId": ours.workspace_id,
                "tenantId": TENANT_ID,
                "discoveryUrl": f"https://{ours.region}.api.azureml.ms/discovery",
                "mlFlowTrackingUri": ours.tracking_uri,
                "provisioningState": "Succeeded",
                "publicNetworkAccess": "Enabled",
                "storageAccount": f"{ours.scope.partition('/providers/')[0]}"
                f"/providers/Microsoft.Storage/storageAccounts/{ours.storage_account}",
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
