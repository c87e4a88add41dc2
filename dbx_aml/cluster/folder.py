"""The folder that an attached cluster reads from: in a volume, or in the workspace."""

import base64
import posixpath
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from dbx_aml._common.errors import ArgumentError, ClusterError
from dbx_aml.cluster.client import Client, Missing

_VOLUME = re.compile(r"/Volumes/([^/]+)/([^/]+)/([^/]+)(/.*)?")
_IN_WORKSPACE = re.compile(r"/(Workspace|Users|Shared|Repos)/.+")
_WORKSPACE_LIMIT = 10 * 2**20


def whole_path(path: str) -> str:
    """Return a path of the workspace with the "/Workspace" that may be left out; others as are."""
    is_short = _IN_WORKSPACE.fullmatch(path) and not path.startswith("/Workspace/")
    return f"/Workspace{path}" if is_short else path


class Folder:
    """A folder of this workspace, be it there or not.

    Args:
        client: Who reads and writes.
        path: In a volume, "/Volumes/<catalog>/<schema>/<volume>/...", or in the workspace,
            "/Workspace/Users/<user>/...".

    Raises:
        ArgumentError: It is neither.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self.path = whole_path(posixpath.normpath(path))
        self.is_volume = bool(_VOLUME.fullmatch(self.path))
        if not self.is_volume and not _IN_WORKSPACE.fullmatch(self.path):
            raise ArgumentError(
                f"folder must be in a volume or in the workspace: got {path!r}; use "
                "/Volumes/<catalog>/<schema>/<volume>/<folder>"
            )

    def __str__(self) -> str:
        return self.path

    def file(self, name: str) -> str:
        """Return the path of a file in it, as a cluster reads it."""
        return f"{self.path}/{name}"

    def location(self, name: str) -> dict[str, dict[str, str]]:
        """Return a file as the clusters API names an init script."""
        kind = "volumes" if self.is_volume else "workspace"
        return {kind: {"destination": self.file(name)}}

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whose folder is made.

        Raises:
            ClusterError: The volume is missing, or the caller may not write there.
        """
        path = self.file(name)
        if self.is_volume:
            self._make_in_volume(posixpath.dirname(path))
            self._client.call(
                "PUT",
                f"/api/2.0/fs/files{quote(path)}",
                what=f"write to {self.path}",
                query={"overwrite": "true"},
                data=content,
                hint="ask for WRITE VOLUME, or give another --folder",
            )
            return
        if len(content) > _WORKSPACE_LIMIT:
            raise ClusterError(
                f"file must have at most 10 MB in the workspace: got {len(content)} bytes in "
                f"{name}; give a volume with --folder"
            )
        what = f"write to {self.path}"
        body = {"path": posixpath.dirname(path)}
        self._client.call("POST", "/api/2.0/workspace/mkdirs", what=what, body=body)
        text = base64.b64encode(content).decode()
        body = {"path": path, "format": "RAW", "content": text}
        self._client.call(
            "POST", "/api/2.0/workspace/import", what=what, body={**body, "overwrite": True}
        )

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file.

        Raises:
            ClusterError: The caller may not read there.
        """
        path, what = self.file(name), f"read {self.path}"
        try:
            if self.is_volume:
                return self._client.read(f"/api/2.0/fs/files{quote(path)}", what=what)
            query = {"path": path, "direct_download": "true", "format": "AUTO"}
            return self._client.read("/api/2.0/workspace/export", what=what, query=query)
        except Missing:
            return None

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; one that is not there is none."""
        for name in names:
            path = self.file(name)
            if self.is_volume:
                self._quietly("DELETE", f"/api/2.0/fs/files{quote(path)}")
            else:
                self._quietly("POST", "/api/2.0/workspace/delete", {"path": path})

    def remove(self, names: list[str]) -> None:
        """Remove files, then the folder with its subfolders where nothing else is in them."""
        if not self.is_volume:
            # Nobody else's files are in a folder of one cluster.
            body = {"path": self.path, "recursive": True}
            self._quietly("POST", "/api/2.0/workspace/delete", body)
            return
        self.delete(names)
        folders = {self.path, *(posixpath.dirname(self.file(name)) for name in names)}
        for folder in sorted(folders, key=len, reverse=True):
            try:
                self._quietly("DELETE", f"/api/2.0/fs/directories{quote(folder)}")
            except ClusterError as err:
                if "not empty" not in str(err):
                    raise

    def _quietly(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        try:
            self._client.call(method, path, what=f"remove files of {self.path}", body=body)
        except Missing:
            return

    def _make_in_volume(self, path: str) -> None:
        volume = ".".join(self.path.split("/")[2:5])
        try:
            self._client.call(
                "PUT",
                f"/api/2.0/fs/directories{quote(path)}",
                what=f"write to {self.path}",
                hint="ask for WRITE VOLUME, or give another --folder",
            )
        except Missing as err:
            raise ClusterError(
                f"volume must exist: there is no {volume}, or the caller may not see it; "
                f"run: CREATE VOLUME {volume}"
            ) from err
