"""Unity Catalog volumes and their files (Files API).

An upload needs its volume and its parent folder.
"""

import posixpath
import time
from typing import Any
from urllib.parse import unquote

from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    bytes_response,
    no_content,
    page_of,
    resource_not_found,
)
from tests.support.http.messages import Response


class Volumes:
    """Volumes and their files.

    Attributes:
        files: Content by path, for example "/Volumes/main/default/dbx_aml/a.sh".
        folders: Paths of all folders; a volume is a folder too.
    """

    def __init__(self) -> None:
        self._volumes: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def add(self, name: str, **fields: Any) -> dict[str, Any]:
        """Make a volume, for example "main.default.dbx_aml"; return its description."""
        catalog, schema, volume = name.split(".")
        volume_info = {
            "catalog_name": catalog,
            "schema_name": schema,
            "name": volume,
            "full_name": name,
            "volume_type": "MANAGED",
            "owner": "admin@contoso.com",
            "created_at": int(time.time() * 1000),
            **fields,
        }
        self._volumes[name] = volume_info
        self.folders.add(f"/Volumes/{catalog}/{schema}/{volume}")
        return volume_info

    @property
    def names(self) -> list[str]:
        """Full names of all volumes."""
        return list(self._volumes)

    def remove(self, name: str) -> None:
        """Remove a volume with its files."""
        del self._volumes[name]
        root = "/Volumes/" + name.replace(".", "/")
        self.folders = {folder for folder in self.folders if not _is_in(folder, root)}
        self.files = {
            file: content for file, content in self.files.items() if not _is_in(file, root)
        }

    def find(self, name: str) -> dict[str, Any]:
        """Return the description of a volume.

        Raises:
            Problem: The volume does not exist.
        """
        if name not in self._volumes:
            raise Problem(404, "RESOURCE_DOES_NOT_EXIST", f"Volume '{name}' does not exist.")
        return self._volumes[name]

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        file = "/api/2.0/fs/files/{path:path}"
        folder = "/api/2.0/fs/directories/{path:path}"
        volumes = "/api/2.1/unity-catalog/volumes"
        return {
            f"PUT {file}": self._put,
            f"GET {file}": self._get,
            f"HEAD {file}": self._get,
            f"DELETE {file}": self._delete,
            f"PUT {folder}": self._make_folder,
            f"GET {folder}": self._list,
            f"HEAD {folder}": self._list,
            f"DELETE {folder}": self._delete_folder,
            f"GET {volumes}/{{name}}": lambda call: self.find(call.path_values["name"]),
            f"GET {volumes}": self._list_volumes,
        }

    def _put(self, call: Call) -> Response:
        path = self._path(call)
        if posixpath.dirname(path) not in self.folders:
            raise Problem(404, "NOT_FOUND", f"The parent directory of {path} does not exist.")
        if path in self.folders or (path in self.files and call.query.get("overwrite") != "true"):
            raise Problem(409, "ALREADY_EXISTS", f"The file {path} already exists.")
        self.files[path] = call.request.body
        return no_content()

    def _get(self, call: Call) -> Response:
        path = self._path(call)
        if path not in self.files:
            raise Problem(404, "NOT_FOUND", f"The file {path} does not exist.")
        return bytes_response(self.files[path], Last_Modified="Tue, 24 Nov 2026 12:00:00 GMT")

    def _delete(self, call: Call) -> Response:
        path = self._path(call)
        if path not in self.files:
            raise Problem(404, "NOT_FOUND", f"The file {path} does not exist.")
        del self.files[path]
        return no_content()

    def _make_folder(self, call: Call) -> Response:
        path = self._path(call)
        while path not in self.folders:
            self.folders.add(path)
            path = posixpath.dirname(path)
        return no_content()

    def _list(self, call: Call) -> Response | dict[str, Any]:
        path = self._folder(call)
        files = [
            {
                "path": file,
                "name": posixpath.basename(file),
                "is_directory": False,
                "file_size": len(content),
            }
            for file, content in self.files.items()
            if posixpath.dirname(file) == path
        ]
        folders = [
            {"path": folder, "name": posixpath.basename(folder), "is_directory": True}
            for folder in sorted(self.folders)
            if posixpath.dirname(folder) == path
        ]
        return page_of(folders + files, call, size=1000, key="contents", field_of_size="page_size")

    def _delete_folder(self, call: Call) -> Response:
        path = self._folder(call)
        if any(posixpath.dirname(child) == path for child in [*self.files, *self.folders]):
            raise Problem(409, "FILE_SYSTEM_CONFLICT", f"The directory {path} is not empty.")
        self.folders.remove(path)
        return no_content()

    def _list_volumes(self, call: Call) -> dict[str, Any]:
        schema = f"{call.query.get('catalog_name')}.{call.query.get('schema_name')}."
        rows = [volume for name, volume in self._volumes.items() if name.startswith(schema)]
        return page_of(rows, call, size=100, key="volumes", field_of_size="max_results")

    def _folder(self, call: Call) -> str:
        path = self._path(call)
        if path not in self.folders:
            raise Problem(404, "NOT_FOUND", f"The directory {path} does not exist.")
        return path

    def _path(self, call: Call) -> str:
        path = "/" + unquote(call.path_values["path"]).strip("/")
        segments = path.split("/")
        if len(segments) < 5 or segments[1] != "Volumes":
            raise Problem(400, "INVALID_PARAMETER_VALUE", f"Not a path in a volume: {path}")
        name = ".".join(segments[2:5])
        if name not in self._volumes:
            raise resource_not_found(f"Volume '{name}' does not exist.")
        return path


def _is_in(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
