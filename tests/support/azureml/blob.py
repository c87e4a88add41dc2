"""The storage account: signed URLs that look like Azure's, and the bytes in Azurite."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from azure.storage.blob import BlobSasPermissions, BlobServiceClient, generate_blob_sas

from tests.support.azureml.upstream import Upstream
from tests.support.azureml.workspace import Workspace
from tests.support.http.messages import Request, Response

_CONTAINER = "azureml"
_GOOD_FOR = timedelta(hours=8)
# A client whose clock is behind may still use the URL at once.
_CLOCK_SKEW = timedelta(minutes=10)


class Blobs:
    """The account's one container.

    Args:
        workspace: Workspace that names the account.
        key: Key of the account, base64.
        port: Port of Azurite.
    """

    def __init__(self, workspace: Workspace, key: str, port: int) -> None:
        self._workspace = workspace
        self._key = key
        self._azurite = Upstream(port)
        account = workspace.storage_account
        with BlobServiceClient(
            f"http://127.0.0.1:{port}/{account}",
            credential={"account_name": account, "account_key": key},
        ) as client:
            client.create_container(_CONTAINER)

    def url(self, name: str, *, write: bool) -> str:
        """Return a blob's URL with a signature that only reads, or also creates and writes."""
        now = datetime.now(UTC)
        signature = generate_blob_sas(
            self._workspace.storage_account,
            _CONTAINER,
            name,
            account_key=self._key,
            permission=BlobSasPermissions(read=True, create=write, write=write),
            start=now - _CLOCK_SKEW,
            expiry=now + _GOOD_FOR,
        )
        return f"https://{self._workspace.blob_host}/{_CONTAINER}/{quote(name)}?{signature}"

    def respond(self, request: Request) -> Response:
        """Pass a request on; Azurite finds the account in the host's name, as Azure does."""
        body = request.body if request.method in ("PUT", "POST") else None
        return self._azurite.send(request.method, request.target, request.headers, body)
