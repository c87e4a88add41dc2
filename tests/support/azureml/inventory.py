"""The datastores, computes, environments and code of a workspace.

Source:
    Microsoft Learn, "Azure Machine Learning REST API", version 2025-12-01; seen 2026-11.
"""

from typing import Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from tests.support.azureml.blob import Blobs
from tests.support.azureml.resources import Refusal, Resources
from tests.support.azureml.workspace import OBJECT_ID, Workspace
from tests.support.http.messages import Request, Response, json_response, match_path

_OTHER_USER = "1f0e2d3c-4b5a-4697-8877-665544332211"


class Inventory:
    """Resources that exist at the start, and versions that callers add.

    Args:
        resources: Store of all resources.
        blobs: Storage account, for uploads of code.
    """

    def __init__(self, workspace: Workspace, resources: Resources, blobs: Blobs) -> None:
        self._workspace = workspace
        self._resources = resources
        self._blobs = blobs
        self.restore()

    def restore(self) -> None:
        """Store the resources that exist at the start."""
        account = self._workspace.storage_account
        for name, kind, container, is_default in (
            ("workspaceblobstore", "AzureBlob", "azureml-blobstore", True),
            ("workspaceartifactstore", "AzureBlob", "azureml", False),
            ("lake", "AzureDataLakeGen2", "raw", False),
        ):
            field = "filesystem" if kind == "AzureDataLakeGen2" else "containerName"
            self._resources.set(
                f"/datastores/{name}",
                "datastores",
                {
                    "properties": {
                        "datastoreType": kind,
                        "accountName": account,
                        field: container,
                        "endpoint": "core.windows.net",
                        "protocol": "https",
                        "isDefault": is_default,
                        "credentials": {"credentialsType": "AccountKey"},
                        "tags": {},
                        "description": None,
                    }
                },
            )
        for name, properties in _computes().items():
            self._resources.set(
                f"/computes/{name}",
                "computes",
                {
                    "location": self._workspace.region,
                    "properties": {"provisioningState": "Succeeded", **properties},
                    "tags": {},
                },
            )

    def respond(self, request: Request, path: str) -> Response | None:
        """Answer a request to such a resource; None for another path."""
        if match_path(r"/(datastores|computes)", path) and request.method == "GET":
            return self._resources.page(request, path)
        if match_path(r"/(datastores|computes)/[^/]+", path) and request.method == "GET":
            return json_response(self._resources.get(path))
        if match_path(r"/(environments|codes)(/[^/]+/versions)?", path) and request.method == "GET":
            return self._resources.page(request, path)
        match = match_path(r"(/(environments|codes)/([^/]+))/versions/([^/]+)(/[A-Za-z]+)?", path)
        if match:
            return self._version(request, path, match[1], match[2].lower(), match[5])
        match = match_path(r"/(environments|codes)/[^/]+", path)
        if match and request.method == "GET":
            return json_response(self._resources.get(path))
        return None

    def read_code(self, code_id: str) -> dict[str, bytes]:
        """Return the files of a code version by their paths."""
        path = code_id.removeprefix(self._workspace.scope)
        code = self._resources.find(path)
        if code is None:
            raise Refusal(400, "BadRequest", f"The code '{code_id}' does not exist.")
        parts = urlsplit(str(code["properties"]["codeUri"])).path.strip("/").partition("/")
        return self._blobs.read_container(parts[0], parts[2])

    def _version(
        self, request: Request, path: str, container: str, kind: str, call: str | None
    ) -> Response:
        if call:
            if kind != "codes" or call.lower() != "/startpendingupload":
                return Response(status=404)
            return self._pending_upload(path)
        if request.method == "GET":
            return json_response(self._resources.get(path))
        if request.method != "PUT":
            return Response(status=405)
        properties = request.json().get("properties") or {}
        if kind == "codes" and not properties.get("codeUri"):
            raise Refusal(400, "UserError", "codeUri is required.")
        if kind == "environments" and not properties.get("image"):
            raise Refusal(400, "UserError", "image or build is required.")
        before = self._resources.find(path)
        if before is not None and not _is_same(before["properties"], properties):
            message = f"The {kind[:-1]} version is there and cannot be changed."
            raise Refusal(400, "UserError", message)
        if self._resources.find(container) is None:
            self._resources.set(
                container,
                kind,
                {"properties": {"latestVersion": path.rpartition("/")[2], "isArchived": False}},
            )
        fields = {"isAnonymous": False, "isArchived": False, "tags": {}, **properties}
        resource = self._resources.set(path, f"{kind}/versions", {"properties": fields})
        return json_response(resource, 200 if before else 201)

    def _pending_upload(self, path: str) -> Response:
        # One place for each version of code, however often a client asks.
        name = str(uuid5(NAMESPACE_URL, path.lower()))
        signed = self._blobs.make_container(name)
        return json_response(
            {
                "pendingUploadId": str(uuid4()),
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": {
                    "blobUri": signed.partition("?")[0],
                    "storageAccountArmId": f"{self._workspace.scope.partition('/providers/')[0]}"
                    "/providers/Microsoft.Storage/storageAccounts/"
                    f"{self._workspace.storage_account}",
                    "credential": {"credentialType": "SAS", "sasUri": signed},
                },
            }
        )


def _is_same(before: dict[str, Any], properties: dict[str, Any]) -> bool:
    """Tell whether a change leaves the content of a version as before."""
    names = ("image", "condaFile", "codeUri")
    return all(before.get(name) == properties.get(name) for name in names)


def _computes() -> dict[str, dict[str, Any]]:
    return {
        "cpu-cluster": {
            "computeType": "AmlCompute",
            "properties": {
                "vmSize": "STANDARD_DS3_V2",
                "vmPriority": "Dedicated",
                "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 4},
                "currentNodeCount": 0,
                "allocationState": "Steady",
            },
        },
        "ci-own": {
            "computeType": "ComputeInstance",
            "properties": {
                "vmSize": "STANDARD_DS3_V2",
                "state": "Running",
                "personalComputeInstanceSettings": {"assignedUser": {"objectId": OBJECT_ID}},
            },
        },
        "ci-stopped": {
            "computeType": "ComputeInstance",
            "properties": {
                "vmSize": "STANDARD_DS3_V2",
                "state": "Stopped",
                "personalComputeInstanceSettings": {"assignedUser": {"objectId": OBJECT_ID}},
            },
        },
        "ci-other": {
            "computeType": "ComputeInstance",
            "properties": {
                "vmSize": "STANDARD_DS3_V2",
                "state": "Running",
                # Only an instance that was made for another user has an assigned one.
                "personalComputeInstanceSettings": None,
                "createdBy": {"userId": _OTHER_USER, "userName": "Ben"},
            },
        },
        "k8s": {
            "computeType": "Kubernetes",
            "properties": {"namespace": "azureml", "defaultInstanceType": "defaultinstancetype"},
        },
    }
