"""Folders, files and notebooks of the workspace.

The format of an import decides its kind: RAW makes a file, SOURCE a notebook of a language, and
AUTO a file or a notebook by extension and first line.
"""

import base64
import posixpath
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    bytes_response,
    invalid_parameter,
    resource_not_found,
)
from tests.support.http.messages import Response

_NOTEBOOK = b"# Databricks notebook source"
_ids = count(4_000_000_001)


@dataclass
class Item:
    """A folder, file or notebook.

    Args:
        kind: DIRECTORY, FILE or NOTEBOOK.
        content: Content of a file or notebook.
        language: Language of a notebook.
    """

    kind: str
    content: bytes = b""
    language: str | None = None
    object_id: int = field(default_factory=lambda: next(_ids))
    changed: int = field(default_factory=lambda: int(time.time() * 1000))


class WorkspaceFiles:
    """Everything under /Workspace.

    Attributes:
        items: Items by path without "/Workspace", for example "/Users/ana@contoso.com/a.sh".
    """

    def __init__(self, user: str) -> None:
        self.items = {
            path: Item("DIRECTORY") for path in ("/", "/Shared", "/Users", f"/Users/{user}")
        }

    def content(self, path: str) -> bytes | None:
        """Return the content of a file; None for a notebook, a folder or a missing file."""
        item = self.items.get(without_prefix(path))
        return item.content if item and item.kind == "FILE" else None

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API."""
        return {
            "GET /api/2.0/workspace/get-status": self._status,
            "GET /api/2.0/workspace/list": self._list,
            "GET /api/2.0/workspace/export": self._export,
            "POST /api/2.0/workspace/import": self._import,
            "POST /api/2.0/workspace/mkdirs": self._mkdirs,
            "POST /api/2.0/workspace/delete": self._delete,
            "POST /api/2.0/workspace-files/import-file/{path:path}": self._import_file,
        }

    def _status(self, call: Call) -> dict[str, Any]:
        return self._to_dict(*self._requested_item(call))

    def _list(self, call: Call) -> dict[str, Any]:
        path, item = self._requested_item(call)
        if item.kind != "DIRECTORY":
            return {"objects": [self._to_dict(path, item)]}
        children = [
            child
            for child in sorted(self.items)
            if child != "/" and posixpath.dirname(child) == path
        ]
        return {"objects": [self._to_dict(child, self.items[child]) for child in children]}

    def _export(self, call: Call) -> Response | dict[str, Any]:
        path, item = self._requested_item(call)
        if item.kind == "DIRECTORY":
            raise invalid_parameter(f"{path} is a directory; it can be exported as DBC only")
        if call.query.get("direct_download") == "true":
            return bytes_response(item.content)
        return {"content": base64.b64encode(item.content).decode(), "file_type": "auto"}

    def _import(self, call: Call) -> None:
        fields = call.body
        path = without_prefix(str(fields.get("path") or ""))
        content = base64.b64decode(fields.get("content") or "")
        overwrite = str(fields.get("overwrite", "")).lower() == "true"
        item = _imported_item(
            path, str(fields.get("format") or "SOURCE"), fields.get("language"), content
        )
        self.put(path, item, overwrite=overwrite)

    def _import_file(self, call: Call) -> dict[str, Any]:
        path = without_prefix("/" + call.path_values["path"])
        item = _imported_item(path, "AUTO", None, call.request.body)
        if item.kind == "NOTEBOOK":
            # As the platform does, a notebook loses its extension.
            path = posixpath.splitext(path)[0]
        self.put(path, item, overwrite=call.query.get("overwrite") == "true")
        return {"object_id": item.object_id}

    def put(self, path: str, item: Item, *, overwrite: bool) -> None:
        """Add or replace an item.

        Raises:
            Problem: The folder does not exist, or the path is taken.
        """
        parent = self.items.get(posixpath.dirname(path))
        if parent is None or parent.kind != "DIRECTORY":
            raise resource_not_found(
                f"The parent folder ({posixpath.dirname(path)}) does not exist."
            )
        existing = self.items.get(path)
        if existing and (not overwrite or existing.kind != item.kind):
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        if existing:
            item.object_id = existing.object_id
        self.items[path] = item

    def _mkdirs(self, call: Call) -> None:
        path = without_prefix(call.required("path"))
        while path not in self.items:
            self.items[path] = Item("DIRECTORY")
            path = posixpath.dirname(path)
        if self.items[path].kind != "DIRECTORY":
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"{path} is a file.")

    def _delete(self, call: Call) -> None:
        path, item = self._requested_item(call)
        children = [child for child in self.items if child.startswith(f"{path}/")]
        if item.kind == "DIRECTORY" and children and not call.body.get("recursive"):
            raise Problem(400, "DIRECTORY_NOT_EMPTY", f"Folder {path} is not empty.")
        for item_path in [path, *children]:
            del self.items[item_path]

    def _requested_item(self, call: Call) -> tuple[str, Item]:
        path = without_prefix(call.required("path"))
        if path not in self.items:
            raise resource_not_found(f"Path ({path}) doesn't exist.")
        return path, self.items[path]

    def _to_dict(self, path: str, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "object_type": item.kind,
            "path": path,
            "object_id": item.object_id,
            "resource_id": str(item.object_id),
        }
        if item.kind != "DIRECTORY":
            entry |= {"modified_at": item.changed, "size": len(item.content)}
        return entry | ({"language": item.language} if item.language else {})


def without_prefix(path: str) -> str:
    """Return a path without the prefix "/Workspace"."""
    path = path.removeprefix("/Workspace").rstrip("/") or "/"
    if not path.startswith("/"):
        raise invalid_parameter(f"Path ({path}) must be absolute.")
    return path


def _imported_item(path: str, format: str, language: Any, content: bytes) -> Item:
    suffix = posixpath.splitext(path)[1].lower()
    if format == "RAW":
        return Item("FILE", content)
    if format == "SOURCE":
        if not language:
            raise invalid_parameter("The language field is required for the SOURCE format.")
        return Item("NOTEBOOK", content, str(language))
    if format == "AUTO":
        is_notebook = content.startswith(_NOTEBOOK) and suffix == ".py"
        return Item("NOTEBOOK", content, "PYTHON") if is_notebook else Item("FILE", content)
    raise invalid_parameter(f"Unsupported format: {format}")
