"""The storage account: signed URLs that look like Azure's, and the bytes in Azurite."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import (
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

from tests.support.azureml.upstream import Upstream
from tests.support.azureml.workspace import Workspace
from tests.support.http.messages import Request, Response

_CONTAINER = "azureml"
_GOOD_FOR = timedelta(hours=8)
# A client whose clock is behind may still use the URL at once.
_CLOCK_SKEW = timedelta(minutes=10)


class Blobs:
    """The account with its container of artifacts, and one container for each upload of code.

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
        self._client = BlobServiceClient(
            f"http://127.0.0.1:{port}/{account}",
            credential={"account_name": account, "account_key": key},
        )
        self._client.create_container(_CONTAINER)

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

    def read(self, name: str) -> bytes:
        """Return the bytes of a blob; b"" for a blob that was never uploaded."""
        url = urlsplit(self.url(name, write=False))
        headers = {"host": self._workspace.blob_host}
        answer = self._azurite.send("GET", f"{url.path}?{url.query}", headers, None)
        return answer.body if answer.status == 200 else b""

    def write(self, name: str, content: bytes) -> None:
        """Write the bytes of a blob, in the place of those that it had."""
        self._client.get_blob_client(_CONTAINER, name).upload_blob(content, overwrite=True)

    def make_container(self, name: str) -> str:
        """Return the signed URL of a container, which is made, to which a client may upload."""
        with suppress(ResourceExistsError):
            self._client.create_container(name)
        now = datetime.now(UTC)
        signature = generate_container_sas(
            self._workspace.storage_account,
            name,
            account_key=self._key,
            permission=ContainerSasPermissions(read=True, write=True, create=True, list=True),
            start=now - _CLOCK_SKEW,
            expiry=now + _GOOD_FOR,
        )
        return f"https://{self._workspace.blob_host}/{name}?{signature}"

    def read_container(self, name: str, prefix: str = "") -> dict[str, bytes]:
        """Return the bytes of a container's blobs by their paths below a folder."""
        container = self._client.get_container_client(name)
        folder = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        names = [blob.name for blob in container.list_blobs(name_starts_with=folder)]
        return {
            blob.removeprefix(folder): container.download_blob(blob).readall() for blob in names
        }

    def respond(self, request: Request) -> Response:
        """Pass a request on; Azurite finds the account in the host's name, as Azure does."""
        body = request.body if request.method in ("PUT", "POST") else None
        return self._azurite.send(request.method, request.target, request.headers, body)
