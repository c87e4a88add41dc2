"""The service that an MLflow URI leads to, and the workspace that an `azureml://` URI names."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from dbx_aml.link.clouds import is_same_data_plane

_AZUREML = re.compile(r"(?:adb)?azureml://", re.IGNORECASE)
_AZUREML_URI = re.compile(
    r"(?:adb)?azureml://(?P<host>[^/?]+)/(?P<api>.*?)"
    r"/subscriptions/(?P<subscription_id>[^/?]+)/resourceGroups/(?P<resource_group>[^/?]+)"
    r"/providers/Microsoft\.MachineLearningServices/(?P<kind>workspaces|registries)"
    r"/(?P<name>[^/?]+)(?P<path>[^?]*)",
    re.IGNORECASE,
)
_RUN_ARTIFACTS = re.compile(r"/experiments/([^/]+)/runs/([^/]+)/artifacts(?:/(.*))?$")


@dataclass(frozen=True, kw_only=True)
class AzuremlUri:
    """The parts of an `azureml://` URI that names a workspace or a registry.

    Args:
        host: Host as the URI has it, in small letters, for example "westeurope.api.azureml.ms". It
            is not checked: see `clouds.check_data_plane_host`.
        api: Path of the API before the workspace's ARM id, for example "mlflow/v1.0".
        subscription_id: GUID of the subscription.
        resource_group: Name of the resource group.
        kind: "workspaces" or "registries".
        name: Name of the workspace or registry.
        path: Path below the workspace, for example "/experiments/e/runs/r/artifacts"; "" for
            none.
    """

    host: str
    api: str
    subscription_id: str
    resource_group: str
    kind: str
    name: str
    path: str

    @property
    def run_artifact(self) -> tuple[str, str, str] | None:
        """Experiment, run id and artifact path, if the URI names an artifact of a run."""
        match = _RUN_ARTIFACTS.search(self.path)
        return (match[1], match[2], match[3] or "") if match else None

    def names_same_resource(self, other: Self) -> bool:
        """Tell whether another URI leads to the same workspace or registry.

        Raises:
            UntrustedHostError: One of the hosts is not Azure ML's.
        """
        return self.has_same_names(other) and is_same_data_plane(self.host, other.host)

    def has_same_names(self, other: Self) -> bool:
        """Tell whether another URI has the same names, on whatever host."""
        identities = {
            (uri.subscription_id, uri.resource_group, uri.kind, uri.name) for uri in (self, other)
        }
        return len({tuple(unquote(name).lower() for name in names) for names in identities}) == 1


def parse_azureml_uri(uri: str | None) -> AzuremlUri | None:
    """Return the parts of a tracking, registry or artifact URI of Azure ML.

    Args:
        uri: MLflow URI, for example "azureml://westeurope.api.azureml.ms/mlflow/v1.0/...", or the
            same with the older scheme "adbazureml".

    Returns:
        None for any other URI, and for one that names no workspace, as
        "azureml://artifacts/LocalUpload/...".
    """
    match = _AZUREML_URI.match((uri or "").strip())
    if match is None:
        return None
    parts = match.groupdict()
    return AzuremlUri(**{**parts, "host": parts["host"].lower(), "kind": parts["kind"].lower()})


def is_azureml_uri(uri: object) -> bool:
    """Tell whether an MLflow URI has one of Azure ML's schemes, "azureml" or "adbazureml"."""
    return isinstance(uri, str) and _AZUREML.match(uri) is not None


def is_adbazureml_uri(uri: object) -> bool:
    """Tell whether an MLflow URI has Azure ML's older scheme, which means tracking in both."""
    return isinstance(uri, str) and uri.lower().startswith("adbazureml://")


def is_databricks_uri(uri: str | None) -> bool:
    """Tell whether an MLflow URI leads to Databricks or to Unity Catalog."""
    return (uri or "").partition("://")[0] in ("databricks", "databricks-uc")


def is_unity_catalog_uri(uri: str | None) -> bool:
    """Tell whether an MLflow registry URI leads to Unity Catalog."""
    return (uri or "").partition("://")[0] == "databricks-uc"
