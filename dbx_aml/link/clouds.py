"""The hosts of each of Azure's clouds."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Hosts of one of Azure's clouds.

    Args:
        api: Suffix of Azure ML's hosts, which begin with the region.
        login: Host that issues Entra's tokens.
        arm: Host of Azure Resource Manager.
        studio: Host of Azure ML studio.
        portal: Host of the Azure portal.
        storage: Suffix of the hosts of storage accounts.

    Source:
        azure-ai-ml 1.34 `_azure_environments`, azureml-mlflow 1.62 `_cloud/cloud.py`, Microsoft
        Learn, "Configure inbound and outbound network traffic" of Azure ML; seen 2026-11.
    """

    api: str
    login: str
    arm: str
    studio: str
    portal: str
    storage: str


CLOUDS: Mapping[str, Cloud] = {
    "AzureCloud": Cloud(
        api="api.azureml.ms",
        login="login.microsoftonline.com",
        arm="management.azure.com",
        studio="ml.azure.com",
        portal="portal.azure.com",
        storage="core.windows.net",
    ),
    "AzureChinaCloud": Cloud(
        api="api.ml.azure.cn",
        login="login.chinacloudapi.cn",
        arm="management.chinacloudapi.cn",
        studio="studio.ml.azure.cn",
        portal="portal.azure.cn",
        storage="core.chinacloudapi.cn",
    ),
    "AzureUSGovernment": Cloud(
        api="api.ml.azure.us",
        login="login.microsoftonline.us",
        arm="management.usgovcloudapi.net",
        studio="ml.azure.us",
        portal="portal.azure.us",
        storage="core.usgovcloudapi.net",
    ),
}
# Suffix of the hosts in URIs of Microsoft's cluster script of 2019.
LEGACY_HOST_SUFFIX = ".experiments.azureml.net"


def cloud_and_region(host: str) -> tuple[str | None, str | None]:
    """Return the cloud and the region that a host of Azure ML names, each None if it names none."""
    if host.endswith(LEGACY_HOST_SUFFIX):
        return "AzureCloud", host.split(".")[0]
    for name, cloud in CLOUDS.items():
        if host.endswith(f".{cloud.api}"):
            return name, host.removesuffix(f".{cloud.api}").rpartition(".")[2]
    return None, None
