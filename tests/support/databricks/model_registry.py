"""Unity Catalog's model registry: registered models, versions, aliases, tags and model files.

A version is created first, then its files are uploaded below /Models through the Files API, then
the client ends the registration. The files of a version that is ready do not change.
"""

import posixpath
import re
import time
from typing import Any
from urllib.parse import unquote

from tests.support.databricks.catalog import Catalogs
from tests.support.databricks.route import (
    Call,
    Handler,
    Problem,
    bytes_response,
    deep_copy,
    invalid_parameter,
    no_content,
    page_of,
    resource_not_found,
)
from tests.support.http.messages import Response

_PENDING, _READY = "PENDING_REGISTRATION", "READY"
_MOST_TAGS = 50
_MOST_TAG_CHARACTERS = 1000
_RESERVED = (".", ",", "-", "=", "/", ":")
_PART = r"[^./ \x00-\x1f\x7f]+"
_FULL_NAME = re.compile(rf"({_PART}\.{_PART})\.{_PART}")
_NAME_FILTER = re.compile(r"name\s*=\s*'([^']*)'")
_SDK_FILES = "registered-models:is-databricks-sdk-models-artifact-repository-enabled"


class ModelRegistry:
    """All registered models of the metastore.

    Attributes:
        models: Registered models by full name, as `registered-models/get` returns them.
        versions: Versions by full name and number, as `model-versions/get` returns them.
        files: Content by path, for example "/Models/main/ml/delay/1/MLmodel".

    Source:
        mlflow's `databricks_uc_registry_service.proto`; Microsoft Learn, "Apply tags to Unity
        Catalog securable objects"; the text of the refused tag: mlflow/recipes-examples issue 58.
    """

    def __init__(self, catalogs: Catalogs) -> None:
        self._catalogs = catalogs
        self.models: dict[str, dict[str, Any]] = {}
        self.versions: dict[tuple[str, str], dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of the API; the routes of files come before the routes of volumes."""
        registry = "/api/2.0/mlflow/unity-catalog"
        models, versions = f"{registry}/registered-models", f"{registry}/model-versions"
        file = "/api/2.0/fs/files/Models/{path:path}"
        folder = "/api/2.0/fs/directories/Models/{path:path}"
        return {
            f"GET {registry}/{_SDK_FILES}": lambda call: {
                "is_databricks_sdk_models_artifact_repository_enabled": True
            },
            f"POST {models}/create": self._create_model,
            f"GET {models}/get": lambda call: {"registered_model": self._shown_model(call)},
            f"GET {models}/search": self._search_models,
            f"DELETE {models}/delete": self._delete_model,
            f"POST {models}/alias": self._set_alias,
            f"GET {models}/alias": self._version_of_alias,
            f"DELETE {models}/alias": self._delete_alias,
            f"POST {versions}/create": self._create_version,
            f"GET {versions}/get": lambda call: {"model_version": deep_copy(self._version(call))},
            f"GET {versions}/search": self._search_versions,
            f"GET {versions}/get-download-uri": lambda call: {
                "artifact_uri": self._version(call)["storage_location"]
            },
            f"POST {versions}/finalize": self._finalize_version,
            f"POST {versions}/emit-lineage": lambda call: {},
            f"PATCH {versions}/update": self._update_version,
            f"DELETE {versions}/delete": self._delete_version,
            f"POST {versions}/set-tag": self._set_tag,
            f"DELETE {versions}/delete-tag": self._delete_tag,
            f"PUT {file}": self._put_file,
            f"GET {file}": self._get_file,
            f"HEAD {folder}": self._list_folder,
            f"GET {folder}": self._list_folder,
        }

    def _create_model(self, call: Call) -> dict[str, Any]:
        name = str(call.required("name"))
        parts = _FULL_NAME.fullmatch(name)
        if parts is None:
            raise invalid_parameter(
                f"Invalid model name {name!r}: it must be of the form "
                "<catalog_name>.<schema_name>.<model_name>"
            )
        schema = parts[1]
        if schema not in self._catalogs.schemas:
            raise Problem(404, "SCHEMA_DOES_NOT_EXIST", f"Schema '{schema}' does not exist.")
        if name in self.models:
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", f"Routine or Model '{name}' exists.")
        self.models[name] = {
            "name": name,
            "user_id": call.user,
            "description": call.body.get("description", ""),
            "tags": _checked_tags(call.body.get("tags", [])),
            **_timestamps(),
        }
        self.models[name]["aliases"] = []
        return {"registered_model": deep_copy(self.models[name])}

    def _search_models(self, call: Call) -> dict[str, Any]:
        rows = [
            {key: value for key, value in self.models[name].items() if key not in _LEFT_OUT}
            for name in sorted(self.models)
        ]
        return page_of(
            deep_copy(rows), call, size=100, key="registered_models", field_of_size="max_results"
        )

    def _delete_model(self, call: Call) -> None:
        name = self._model(call)["name"]
        if any(model_name == name for model_name, _ in self.versions):
            raise Problem(400, "INVALID_STATE", f"Model '{name}' is not empty.")
        del self.models[name]

    def _set_alias(self, call: Call) -> None:
        self._version(call)
        alias, version = str(call.required("alias")), str(call.required("version"))
        if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
            raise invalid_parameter(f"{alias!r} is a reserved alias.")
        model = self._model(call)
        model["aliases"] = [entry for entry in model["aliases"] if entry["alias"] != alias]
        model["aliases"].append({"alias": alias, "version": version})
        self._update_aliases(model["name"])

    def _delete_alias(self, call: Call) -> None:
        alias, model = call.required("alias"), self._model(call)
        model["aliases"] = [entry for entry in model["aliases"] if entry["alias"] != alias]
        self._update_aliases(model["name"])

    def _update_aliases(self, name: str) -> None:
        for (model_name, number), version in self.versions.items():
            if model_name == name:
                version["aliases"] = [
                    entry for entry in self.models[name]["aliases"] if entry["version"] == number
                ]

    def _version_of_alias(self, call: Call) -> dict[str, Any]:
        model, alias = self._model(call), call.required("alias")
        for entry in model["aliases"]:
            if entry["alias"] == alias:
                version = self.versions[model["name"], entry["version"]]
                return {"model_version": deep_copy(version)}
        raise resource_not_found(f"Alias '{alias}' does not exist.")

    def _create_version(self, call: Call) -> dict[str, Any]:
        model = self._model(call)
        name = model["name"]
        # A number is never used again.
        model["last_version"] = number = int(model.get("last_version", 0)) + 1
        version = {
            "name": name,
            "version": str(number),
            "user_id": call.user,
            "status": _PENDING,
            "storage_location": f"abfss://models@uc.dfs.core.windows.net/{name}/{number}",
            "tags": _checked_tags(call.body.get("tags", [])),
            "aliases": [],
            **{
                key: call.body[key]
                for key in ("source", "run_id", "description", "run_tracking_server_id", "model_id")
                if key in call.body
            },
            **_timestamps(),
        }
        self.versions[name, str(number)] = version
        return {"model_version": deep_copy(version)}

    def _finalize_version(self, call: Call) -> dict[str, Any]:
        version = self._version(call)
        if f"{_folder_of(version)}/MLmodel" not in self.files:
            raise Problem(400, "INVALID_STATE", "The model version has no MLmodel file.")
        version["status"] = _READY
        return {"model_version": deep_copy(version)}

    def _update_version(self, call: Call) -> dict[str, Any]:
        version = self._version(call)
        version["description"] = call.body.get("description", "")
        return {"model_version": deep_copy(version)}

    def _delete_version(self, call: Call) -> None:
        version = self._version(call)
        folder = _folder_of(version)
        self.files = {
            path: content
            for path, content in self.files.items()
            if not path.startswith(f"{folder}/")
        }
        del self.versions[version["name"], version["version"]]

    def _search_versions(self, call: Call) -> dict[str, Any]:
        match = _NAME_FILTER.fullmatch(call.query.get("filter", "").strip())
        if match is None:
            raise invalid_parameter(f"Unsupported filter: {call.query.get('filter')!r}")
        rows = [
            {key: value for key, value in version.items() if key not in _LEFT_OUT}
            for (name, _), version in self.versions.items()
            if name == match[1]
        ]
        return page_of(
            deep_copy(rows[::-1]), call, size=100, key="model_versions", field_of_size="max_results"
        )

    def _set_tag(self, call: Call) -> None:
        version = self._version(call)
        (tag,) = _checked_tags([{"key": call.required("key"), "value": call.body.get("value", "")}])
        other_tags = [other for other in version["tags"] if other["key"] != tag["key"]]
        version["tags"] = _checked_tags([*other_tags, tag])

    def _delete_tag(self, call: Call) -> None:
        version = self._version(call)
        version["tags"] = [tag for tag in version["tags"] if tag["key"] != call.required("key")]

    def _put_file(self, call: Call) -> Response:
        path = _path_of(call)
        version = self._version_of_file(path)
        if version["status"] == _READY:
            raise Problem(403, "PERMISSION_DENIED", f"{path} belongs to a version that is ready.")
        self.files[path] = call.request.body
        return no_content()

    def _get_file(self, call: Call) -> Response:
        path = _path_of(call)
        if path not in self.files:
            raise Problem(404, "NOT_FOUND", f"The file {path} does not exist.")
        return bytes_response(self.files[path], Last_Modified="Tue, 24 Nov 2026 12:00:00 GMT")

    def _list_folder(self, call: Call) -> dict[str, Any]:
        folder = _path_of(call)
        below = [path for path in sorted(self.files) if path.startswith(f"{folder}/")]
        if not below:
            raise Problem(404, "NOT_FOUND", f"The directory {folder} does not exist.")
        rows: dict[str, dict[str, Any]] = {}
        for path in below:
            name, slash, _ = path.removeprefix(f"{folder}/").partition("/")
            rows[name] = {
                "path": f"{folder}/{name}",
                "name": name,
                "is_directory": bool(slash),
                **({} if slash else {"file_size": len(self.files[path])}),
            }
        return page_of([*rows.values()], call, size=1000, key="contents", field_of_size="page_size")

    def _model(self, call: Call) -> dict[str, Any]:
        name = str(call.required("name"))
        if name not in self.models:
            raise resource_not_found(f"Routine or Model '{name}' does not exist.")
        return self.models[name]

    def _shown_model(self, call: Call) -> dict[str, Any]:
        model: dict[str, Any] = deep_copy(self._model(call))
        model.pop("last_version", None)
        return model

    def _version(self, call: Call) -> dict[str, Any]:
        key = (self._model(call)["name"], str(call.required("version")))
        if key not in self.versions:
            raise resource_not_found(f"Model version '{key[0]}' '{key[1]}' does not exist.")
        return self.versions[key]

    def _version_of_file(self, path: str) -> dict[str, Any]:
        _, _, catalog, schema, model, number, *_ = path.split("/")
        key = (f"{catalog}.{schema}.{model}", number)
        if key not in self.versions:
            raise resource_not_found(f"Model version '{key[0]}' '{key[1]}' does not exist.")
        return self.versions[key]


# A search returns neither.
_LEFT_OUT = ("tags", "aliases", "last_version")


def _timestamps() -> dict[str, int]:
    now = int(time.time() * 1000)
    return {"creation_timestamp": now, "last_updated_timestamp": now}


def _folder_of(version: dict[str, Any]) -> str:
    return f"/Models/{version['name'].replace('.', '/')}/{version['version']}"


def _path_of(call: Call) -> str:
    return posixpath.normpath("/Models/" + unquote(call.path_values["path"]).strip("/"))


def _checked_tags(tags: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return tags with their key and value, or refuse them as the platform does."""
    for tag in tags:
        key, value = tag["key"], tag.get("value", "")
        if any(character in key for character in _RESERVED):
            raise invalid_parameter(
                f"Tag name {key} contains one or more of the reserved characters: "
                "List(., ,, -, =, /, :)"
            )
        if len(value) > _MOST_TAG_CHARACTERS or len(key) > 255 or value != value.strip():
            raise invalid_parameter(f"Tag {key} is too long, or begins or ends with a blank.")
    if len(tags) > _MOST_TAGS:
        raise invalid_parameter(f"A model version has at most {_MOST_TAGS} tags.")
    return [{"key": tag["key"], "value": tag.get("value", "")} for tag in tags]
