"""Unity Catalog volumes and their files (Files API).

A parent folder of an upload must be there, as must the volume.
"""

import posixpath
import time
from typing import Any
from urllib.parse import unquote

from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    as_bytes,
    missing,
    no_content,
    page_of,
)
from tests.support.http.messages import Response


class Volumes:
    """Volumes and what is in them.

    Attributes:
        files: Content by path, for example "/Volumes/main/default/dbx_aml/a.sh".
        folders: Paths of folders, those of the volumes too.
    """

    def __init__(self) -> None:
        self._volumes: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()

    def add(self, name: str, **fields: Any) -> dict[str, Any]:
        """Make a volume, for example "main.default.dbx_aml"; return what the service says of it."""
        catalog, schema, volume = name.split(".")
        made = {
            "catalog_name": catalog,
            "schema_name": schema,
            "name": volume,
            "full_name": name,
            "volume_type": "MANAGED",
            "owner": "admin@contoso.com",
            "created_at": int(time.time() * 1000),
            **fields,
        }
        self._volumes[name] = made
        self.folders.add(f"/Volumes/{catalog}/{schema}/{volume}")
        return made

    @property
    def names(self) -> list[str]:
        """Full names of all volumes."""
        return list(self._volumes)

    def remove(self, name: str) -> None:
        """Remove a volume with its files."""
        del self._volumes[name]
        root = "/Volumes/" + name.replace(".", "/")
        self.folders = {one for one in self.folders if not _is_in(one, root)}
        self.files = {one: text for one, text in self.files.items() if not _is_in(one, root)}

    def find(self, name: str) -> dict[str, Any]:
        """Return what the service says of a volume.

        Raises:
            Problem: There is none.
        """
        if name not in self._volumes:
            raise Problem(404, "RESOURCE_DOES_NOT_EXIST", f"Volume '{name}' does not exist.")
        return self._volumes[name]

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
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
            f"GET {volumes}/{{name}}": lambda call: self.find(call.parts["name"]),
            f"GET {volumes}": self._all,
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
        return as_bytes(self.files[path], Last_Modified="Tue, 24 Nov 2026 12:00:00 GMT")

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
                "path": one,
                "name": posixpath.basename(one),
                "is_directory": False,
                "file_size": len(text),
            }
            for one, text in self.files.items()
            if posixpath.dirname(one) == path
        ]
        folders = [
            {"path": one, "name": posixpath.basename(one), "is_directory": True}
            for one in sorted(self.folders)
            if posixpath.dirname(one) == path
        ]
        return page_of(folders + files, call, size=1000, key="contents", field_of_size="page_size")

    def _delete_folder(self, call: Call) -> Response:
        path = self._folder(call)
        if any(posixpath.dirname(one) == path for one in [*self.files, *self.folders]):
            raise Problem(409, "FILE_SYSTEM_CONFLICT", f"The directory {path} is not empty.")
        self.folders.remove(path)
        return no_content()

    def _all(self, call: Call) -> dict[str, Any]:
        schema = f"{call.query.get('catalog_name')}.{call.query.get('schema_name')}."
        rows = [one for name, one in self._volumes.items() if name.startswith(schema)]
        return page_of(rows, call, size=100, key="volumes", field_of_size="max_results")

    def _folder(self, call: Call) -> str:
        path = self._path(call)
        if path not in self.folders:
            raise Problem(404, "NOT_FOUND", f"The directory {path} does not exist.")
        return path

    def _path(self, call: Call) -> str:
        path = "/" + unquote(call.parts["path"]).strip("/")
        parts = path.split("/")
        if len(parts) < 5 or parts[1] != "Volumes":
            raise Problem(400, "INVALID_PARAMETER_VALUE", f"Not a path in a volume: {path}")
        name = ".".join(parts[2:5])
        if name not in self._volumes:
            raise missing(f"Volume '{name}' does not exist.")
        return path


def _is_in(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
