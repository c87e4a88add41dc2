"""Parse and build URIs of models: `models:/`, `runs:/` and paths."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from dbx_aml._common.errors import ModelUriError

Kind = Literal["version", "alias", "logged_model", "run", "path"]

_STAGES = {"latest", "none", "staging", "production", "archived"}


@dataclass(frozen=True, kw_only=True)
class ModelUri:
    """A parsed model URI; `str()` returns its text.

    Args:
        kind: Kind of name that the URI gives the model.
        name: Registered model, for example "delay" or "main.flights.delay".
        version: Version of the registered model, for example "3".
        alias: Alias of the registered model, for example "champion".
        model_id: Logged model, for example "m-5f0c...", in Azure ML "m-<run id>-5f0c12ab".
        run_id: Run that logged the model.
        path: Artifact path within the run, or the path of the model itself.
    """

    kind: Kind
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    model_id: str | None = None
    run_id: str | None = None
    path: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of a model URI.

        "latest" and stages are refused: each new version changes the model that they name. An
        alias is accepted: a user moves it on purpose.

        Args:
            text: URI, for example "models:/delay/3", "models:/main.flights.delay@champion",
                "models:/m-5f0c...", "runs:/4be1.../model", "/tmp/model" or "s3://bucket/model".

        Raises:
            ModelUriError: The URI names no model, or no version of a registered model.
        """
        if not text.strip():
            raise ModelUriError(
                f"model URI must not be empty: got {text!r}; pass 'models:/<name>/3'"
            )
        if text.startswith("models:"):
            return cls._registered(text)
        if text.startswith("runs:"):
            return cls._run(text)
        if re.match(r"(models?|runs?):", text, re.IGNORECASE):
            raise ModelUriError(
                f"model URI must start with 'models:/', 'runs:/' or be a path: got {text!r}"
            )
        return cls(kind="path", path=text)

    @classmethod
    def _registered(cls, text: str) -> Self:
        rest = text.removeprefix("models:")
        if rest.startswith("//") or not rest.startswith("/"):
            raise ModelUriError(
                f"model URI must start with 'models:/' and a name: got {text!r}; "
                "say which registry with the registry URI"
            )
        rest = rest.removeprefix("/")
        if re.fullmatch(r"m-[0-9a-zA-Z][0-9a-zA-Z_-]*", rest):
            return cls(kind="logged_model", model_id=rest)
        if "/" in rest:
            name, _, version = rest.partition("/")
            if name.strip() and re.fullmatch(r"[0-9]+", version) and int(version) > 0:
                return cls(kind="version", name=name, version=version)
            if version.lower() in _STAGES:
                raise ModelUriError(
                    f"model URI must name a version or an alias, not {version!r}, which moves: "
                    f"got {text!r}; use 'models:/{name}/3' or 'models:/{name}@champion'"
                )
            raise ModelUriError(
                f"model URI must be 'models:/<name>/<version>': got {text!r}; "
                "the version is a whole number from 1"
            )
        name, at, alias = rest.rpartition("@")
        if at and name.strip() and alias.strip():
            return cls(kind="alias", name=name, alias=alias)
        raise ModelUriError(
            f"model URI must name a version or an alias: got {text!r}; add '/3' or '@champion'"
        )

    @classmethod
    def _run(cls, text: str) -> Self:
        match = re.fullmatch(r"runs:/([^/]+)/(.*[^/])/*", text)
        if match is None:
            raise ModelUriError(
                f"model URI must be 'runs:/<run id>/<artifact path>': got {text!r}; "
                "the path is the name the model was logged with, often 'model'"
            )
        return cls(kind="run", run_id=match[1], path=match[2])

    def __str__(self) -> str:
        match self.kind:
            case "version":
                return f"models:/{self.name}/{self.version}"
            case "alias":
                return f"models:/{self.name}@{self.alias}"
            case "logged_model":
                return f"models:/{self.model_id}"
            case "run":
                return f"runs:/{self.run_id}/{self.path}"
            case "path":
                return str(self.path)
