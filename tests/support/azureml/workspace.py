"""The workspace that the stand-in serves, and the identities that may use it.

All names of Azure resources are in this module, for the tests and for the service.
"""

from dataclasses import dataclass

TENANT_ID = "5f2b1c1e-8d2e-4a64-9a53-0c6c1d4f7a10"
CLIENT_ID = "0b9a6c1d-3f57-4f0e-8f0c-6a1c2f6d9e21"
OBJECT_ID = "c7d8e9f0-1a2b-4c3d-8e4f-5a6b7c8d9e0f"
LOGIN_HOST = "login.microsoftonline.com"
MANAGEMENT_HOST = "management.azure.com"
PRICES_HOST = "prices.azure.com"
# Suffix of the hosts of online endpoints, which begin with the endpoint's name and the region.
INFERENCE_SUFFIX = ".inference.ml.azure.com"
# Host of the attached Kubernetes cluster.
KUBERNETES_HOST = "inference.k8s.contoso.com"
# Of the stand-in itself, asked without a tunnel.
IDENTITY_PATH = "/msi/token"
ADMIN_PATH = "/stand-in/"
_PROVIDER = "Microsoft.MachineLearningServices"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """An Azure ML workspace, by the names that Azure knows it by.

    Args:
        subscription_id: For example "8c1e5a90-...".
        resource_group: For example "rg-ml".
        workspace_name: For example "mlw-team".
        region: For example "westeurope"; part of the host name.
        workspace_id: The workspace's own identifier, which only the management endpoint tells.
        storage_account: Account of the workspace's artifacts.
    """

    subscription_id: str = "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42"
    resource_group: str = "rg-ml"
    workspace_name: str = "mlw-team"
    region: str = "westeurope"
    workspace_id: str = "e1d0c9b8-a7f6-4e5d-8c4b-3a2918070615"
    storage_account: str = "mlwteam4207593168"

    @property
    def scope(self) -> str:
        """The resource's path, "/subscriptions/.../workspaces/<name>"."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/{_PROVIDER}/workspaces/{self.workspace_name}"
        )

    @property
    def api_host(self) -> str:
        """Host of tracking, registry and artifacts."""
        return f"{self.region}.api.azureml.ms"

    @property
    def blob_host(self) -> str:
        """Host of the artifacts' bytes."""
        return f"{self.storage_account}.blob.core.windows.net"

    @property
    def tracking_uri(self) -> str:
        """The URI as the management endpoint and the portal show it, which is v1.0 of the path."""
        return f"azureml://{self.api_host}/mlflow/v1.0{self.scope}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that the stand-in answers for; `*` stands for the name of an endpoint."""
        return (
            LOGIN_HOST,
            MANAGEMENT_HOST,
            PRICES_HOST,
            self.api_host,
            self.blob_host,
            f"*.{self.region}{INFERENCE_SUFFIX}",
            KUBERNETES_HOST,
        )
