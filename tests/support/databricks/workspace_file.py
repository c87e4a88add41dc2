"""Folders, files and notebooks of the workspace.

What an import makes depends on its format: RAW a file, SOURCE a notebook of a language, AUTO one or
the other by extension and first line.
"""

import base64
import posixpath
import time
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from itertools import count
from typing import Any

from tests.support.databricks.route import Call, Handler, Problem, as_bytes, invalid, missing
from tests.support.http.messages import Response

_LANGUAGES = {".py": "PYTHON", ".sql": "SQL", ".scala": "SCALA", ".r": "R"}
_NOTEBOOK = b"# Databricks notebook source"
_ids = count(4_000_000_001)


@dataclass
class Item:
    """One thing of the workspace.

    Args:
        kind: DIRECTORY, FILE or NOTEBOOK.
        content: Of a file or notebook.
        language: Of a notebook.
    """

    kind: str
    content: bytes = b""
    language: str | None = None
    object_id: int = field(default_factory=lambda: next(_ids))
    changed: int = field(default_factory=lambda: int(time.time() * 1000))


class WorkspaceFiles:
    """Everything under /Workspace.

    Args:
        user: Whose home exists.

    Attributes:
        items: By path without "/Workspace", for example "/Users/ana@contoso.com/a.sh".
    """

    def __init__(self, user: str) -> None:
        self.items = {
            path: Item("DIRECTORY") for path in ("/", "/Shared", "/Users", f"/Users/{user}")
        }

    def content(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no file, be it a notebook."""
        item = self.items.get(plain(path))
        return item.content if item and item.kind == "FILE" else None

    def handlers(self) -> dict[str, Handler]:
        """What it answers."""
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
        return self._as_json(*self._found(call))

    def _list(self, call: Call) -> dict[str, Any]:
        path, item = self._found(call)
        if item.kind != "DIRECTORY":
            return {"objects": [self._as_json(path, item)]}
        inside = [
            one for one in sorted(self.items) if one != "/" and posixpath.dirname(one) == path
        ]
        return {"objects": [self._as_json(one, self.items[one]) for one in inside]}

    def _export(self, call: Call) -> Response | dict[str, Any]:
        path, item = self._found(call)
        if item.kind == "DIRECTORY":
            raise invalid(f"{path} is a directory; it can be exported as DBC only")
        if call.query.get("direct_download") == "true":
            return as_bytes(item.content)
        return {"content": base64.b64encode(item.content).decode(), "file_type": "auto"}

    def _import(self, call: Call) -> None:
        given = _form(call) or call.body
        path = plain(str(given.get("path") or ""))
        content = given.get("content") or b""
        if isinstance(content, str):
            content = base64.b64decode(content)
        overwrite = str(given.get("overwrite", "")).lower() == "true"
        item = _made(path, str(given.get("format") or "SOURCE"), given.get("language"), content)
        self.put(path, item, overwrite=overwrite)

    def _import_file(self, call: Call) -> dict[str, Any]:
        path = plain("/" + call.parts["path"])
        item = _made(path, "AUTO", None, call.request.body)
        if item.kind == "NOTEBOOK":
            # As the platform does, a notebook loses its extension.
            path = posixpath.splitext(path)[0]
        self.put(path, item, overwrite=call.query.get("overwrite") == "true")
        return {"object_id": item.object_id}

    def put(self, path: str, item: Item, *, overwrite: bool) -> None:
        """Put a thing where its folder is.

        Raises:
            Problem: The folder is missing, or something is there already.
        """
        parent = self.items.get(posixpath.dirname(path))
        if parent is None or parent.kind != "DIRECTORY":
            raise missing(f"The parent folder ({posixpath.dirname(path)}) does not exist.")
        before = self.items.get(path)
        if before and (not overwrite or before.kind != item.kind):
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        if before:
            item.object_id = before.object_id
        self.items[path] = item

    def _mkdirs(self, call: Call) -> None:
        path = plain(call.needed("path"))
        while path not in self.items:
            self.items[path] = Item("DIRECTORY")
            path = posixpath.dirname(path)
        if self.items[path].kind != "DIRECTORY":
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"{path} is a file.")

    def _delete(self, call: Call) -> None:
        path, item = self._found(call)
        inside = [one for one in self.items if one.startswith(f"{path}/")]
        if item.kind == "DIRECTORY" and inside and not call.body.get("recursive"):
            raise Problem(400, "DIRECTORY_NOT_EMPTY", f"Folder {path} is not empty.")
        for one in [path, *inside]:
            del self.items[one]

    def _found(self, call: Call) -> tuple[str, Item]:
        path = plain(call.needed("path"))
        if path not in self.items:
            raise missing(f"Path ({path}) doesn't exist.")
        return path, self.items[path]

    def _as_json(self, path: str, item: Item) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "object_type": item.kind,
            "path": path,
            "object_id": item.object_id,
            "resource_id": str(item.object_id),
        }
        if item.kind != "DIRECTORY":
            shown |= {"modified_at": item.changed, "size": len(item.content)}
        return shown | ({"language": item.language} if item.language else {})


def plain(path: str) -> str:
    """Return a path without "/Workspace", under which everything is too."""
    path = path.removeprefix("/Workspace").rstrip("/") or "/"
    if not path.startswith("/"):
        raise invalid(f"Path ({path}) must be absolute.")
    return path


def _made(path: str, format: str, language: Any, content: bytes) -> Item:
    suffix = posixpath.splitext(path)[1].lower()
    if format == "RAW":
        return Item("FILE", content)
    if format == "SOURCE":
        if not language:
            raise invalid("The language field is required for the SOURCE format.")
        return Item("NOTEBOOK", content, str(language))
    if format == "AUTO":
        is_notebook = content.startswith(_NOTEBOOK) and suffix == ".py"
        return Item("NOTEBOOK", content, "PYTHON") if is_notebook else Item("FILE", content)
    raise invalid(f"Unsupported format: {format}")


def _form(call: Call) -> dict[str, Any]:
    """Return the fields of a multipart form: a file's bytes, everything else as text."""
    kind = call.request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return {}
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + call.request.body)
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        fields[name] = content if name == "content" else content.decode()
    return fields
