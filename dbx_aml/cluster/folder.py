"""The folder of an attached cluster: in a Unity Catalog volume, or in the workspace."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dbx_aml._common.errors import (
    ArgumentError,
    ClusterError,
    NotFoundError,
    ServiceError,
    UnsafePathError,
)
from dbx_aml._common.paths import check_relative_path, join_inside
from dbx_aml.cluster.client import Client

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_VOLUME_PATH = re.compile(r"/Volumes/([^/]+)/([^/]+)/([^/]+)(/.*)?")
_WORKSPACE_PATH = re.compile(r"/(Workspace|Users|Shared|Repos)/.+")
_WRITE_PRIVILEGES = {"WRITE_VOLUME", "ALL_PRIVILEGES", "MANAGE"}
_READ_PRIVILEGES = {"READ_VOLUME", "ALL_PRIVILEGES"}
_APPLICATION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_WORKSPACE_FILE = 10 * 2**20


def absolute_path(path: str) -> str:
    """Return a workspace path with "/Workspace", which may be left out; other paths unchanged."""
    is_short = _WORKSPACE_PATH.fullmatch(path) and not path.startswith("/Workspace/")
    return f"/Workspace{path}" if is_short else path


def is_cluster_folder(path: str) -> bool:
    """Tell whether a path can be the folder of a cluster: in a volume or in the workspace."""
    try:
        check_relative_path(path.lstrip("/"))
    except UnsafePathError:
        return False
    return bool(_VOLUME_PATH.fullmatch(path) or _WORKSPACE_PATH.fullmatch(path))


def _is_group(principal: str) -> bool:
    """Tell a group from a user, whose name is an e-mail address, and a service principal."""
    return "@" not in principal and not _APPLICATION_ID.fullmatch(principal)


class ClusterFolder:
    """A folder in a volume or in the workspace; it need not exist yet.

    Args:
        client: Databricks client of the caller.
        path: Path, "/Volumes/<catalog>/<schema>/<volume>/..." or "/Workspace/Users/<user>/...".

    Raises:
        ArgumentError: The path is neither in a volume nor in the workspace.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self.path = absolute_path(posixpath.normpath(path))
        self.is_volume = bool(_VOLUME_PATH.fullmatch(self.path))
        if ".." in path.split("/") or not is_cluster_folder(self.path):
            raise ArgumentError(
                f"folder must be in a volume or in the workspace: got {path!r}; use "
                "/Volumes/<catalog>/<schema>/<volume>/<folder>"
            )

    def __str__(self) -> str:
        return self.path

    def file_path(self, name: str) -> str:
        """Return the path of a file in the folder, as a cluster reads it.

        Raises:
            UnsafePathError: The name leads out of the folder.
        """
        return join_inside(self.path, name)

    def script_location(self, name: str) -> dict[str, dict[str, str]]:
        """Return a file in the folder as the clusters API names an init script."""
        kind = "volumes" if self.is_volume else "workspace"
        return {kind: {"destination": self.file_path(name)}}

    def other_writers(self) -> list[str]:
        """Return the users and groups, besides the caller, that may write to the volume.

        Returns:
            Nobody for a folder in the workspace, and if the caller may not see the grants.
        """
        try:
            holders = self._privileges() if self.is_volume else {}
        except ServiceError:
            return []
        return sorted(
            principal
            for principal, privileges in holders.items()
            if principal != self._client.user and privileges & _WRITE_PRIVILEGES
        )

    def may_read(self, reader: str) -> bool:
        """Tell whether a user, group or service principal may read files of the folder.

        Groups may have the reader as a member, so a group with the privilege counts. So does a
        volume whose privileges the caller may not see.
        """
        if not self.is_volume:
            # Only the user and administrators read a user's folder.
            return not self.path.startswith(("/Workspace/Users/", "/Workspace/Repos/")) or (
                self.path.startswith(f"/Workspace/Users/{reader}/")
            )
        try:
            holders = self._privileges()
            with self._client.calls_to(f"see who may read {self.path}") as databricks:
                owner = databricks.volumes.read(quote(self._volume)).owner
        except ServiceError:
            return True
        readers = {name for name, held in holders.items() if held & _READ_PRIVILEGES}
        return reader == owner or any(name == reader or _is_group(name) for name in readers)

    def grant_hint(self, reader: str) -> str:
        """Return the next step for a reader who may not read the folder."""
        if not self.is_volume:
            return "give --folder /Volumes/<catalog>/<schema>/<volume>"
        return f"run: GRANT READ VOLUME ON VOLUME {self._volume} TO `{reader}`"

    def _privileges(self) -> dict[str, set[str]]:
        """Return the effective privileges on the volume by principal."""
        # Not by `grants.get_effective`: it takes an enumeration in releases before 0.56.
        answer = self._client.call(
            "GET",
            f"/api/2.1/unity-catalog/effective-permissions/volume/{quote(self._volume)}",
            operation=f"see the privileges on {self._volume}",
        )
        return {
            str(assignment.get("principal")): {
                str(privilege.get("privilege")) for privilege in assignment.get("privileges", [])
            }
            for assignment in answer.get("privilege_assignments", [])
        }

    def write_file(self, name: str, content: bytes) -> None:
        """Write a file, and make its folder.

        Raises:
            ClusterError: The volume does not exist, or the file is too large for the workspace.
            ServiceError: The caller may not write to the folder.
        """
        path = self.file_path(name)
        if self.is_volume:
            self._write_to_volume(path, content)
            return
        if len(content) > _MAX_WORKSPACE_FILE:
            raise ClusterError(
                f"file must have at most 10 MB in the workspace: got {len(content)} bytes in "
                f"{name}; give a volume with --folder"
            )
        operation = f"write to {self.path}"
        with self._client.calls_to(operation) as databricks:
            databricks.workspace.mkdirs(posixpath.dirname(path))
        # Not by `workspace.import_`: release 0.30 lacks RAW, the format of unchanged files.
        text = base64.b64encode(content).decode()
        body = {"path": path, "format": "RAW", "content": text, "overwrite": True}
        self._client.call("POST", "/api/2.0/workspace/import", operation=operation, body=body)

    def read_file(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist.

        Raises:
            ServiceError: The caller may not read the folder.
        """
        from databricks.sdk.service.workspace import ExportFormat

        path = self.file_path(name)
        try:
            with self._client.calls_to(f"read {self.path}") as databricks:
                if self.is_volume:
                    stream: Any = databricks.files.download(path).contents
                else:
                    stream = databricks.workspace.download(path, format=ExportFormat.AUTO)
                with stream:
                    return bytes(stream.read())
        except NotFoundError:
            return None

    def delete_files(self, names: Iterable[str]) -> None:
        """Delete files; names of files that do not exist are ignored."""
        for name in names:
            with self._calls_to_delete() as databricks:
                if self.is_volume:
                    databricks.files.delete(self.file_path(name))
                else:
                    databricks.workspace.delete(self.file_path(name))

    def delete_folder(self, names: list[str]) -> None:
        """Delete files, then the folder and its subfolders if no other file is in them."""
        if not self.is_volume:
            # The folder belongs to one cluster: only dbx-aml writes to it.
            with self._calls_to_delete() as databricks:
                databricks.workspace.delete(self.path, recursive=True)
            return
        self.delete_files(names)
        folders = {self.path, *(posixpath.dirname(self.file_path(name)) for name in names)}
        for folder in sorted(folders, key=len, reverse=True):
            try:
                with self._calls_to_delete() as databricks:
                    databricks.files.delete_directory(folder)
            except ServiceError as err:
                if "not empty" not in str(err):
                    raise

    @contextmanager
    def _calls_to_delete(self) -> Iterator[WorkspaceClient]:
        with (
            suppress(NotFoundError),
            self._client.calls_to(f"remove files of {self.path}") as databricks,
        ):
            yield databricks

    @property
    def _volume(self) -> str:
        """Full name of the volume, for example "main.ml.dbx_aml"."""
        return ".".join(self.path.split("/")[2:5])

    def _write_to_volume(self, path: str, content: bytes) -> None:
        hint = "ask for WRITE VOLUME, or give another --folder"
        try:
            with self._client.calls_to(f"write to {self.path}", hint=hint) as databricks:
                databricks.files.create_directory(posixpath.dirname(path))
                databricks.files.upload(path, BytesIO(content), overwrite=True)
        except NotFoundError as err:
            raise ClusterError(
                f"volume must exist: {self._volume} does not, or the caller may not see it; "
                f"run: CREATE VOLUME {self._volume}"
            ) from err
