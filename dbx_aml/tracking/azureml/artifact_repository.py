"""MLflow's view of artifacts in Azure ML: folders, relative paths, only what is really there.

azureml-mlflow lists every path that begins with a folder's name, so "model" also has the files of
"model2", and its paths are relative to the run wherever one starts; it takes the workspace from
the global tracking URI, which may be another server's. Here the URI itself says which workspace.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import mlflow
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from dbx_aml.tracking.azureml.artifact_container import OWN_FOLDER, ArtifactContainer, run_parts
from dbx_aml.tracking.azureml.service_context import context_of, names_workspace


class AmlArtifactRepository(ArtifactRepository):  # type: ignore[misc,unused-ignore]
    """Artifacts below one URI of a workspace.

    Args:
        artifact_uri: Of a run ("azureml://<host>/mlflow/...", with a path or not) or of an upload
            ("azureml://artifacts/LocalUpload/<container>/<path>").
        tracking_uri: Says which workspace an upload's URI means.
        registry_uri: As well.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri)
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri
        workspace = _workspace_uri(artifact_uri, registry_uri, tracking_uri)
        self.container, self.root = _place(artifact_uri, workspace)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload one file into a folder."""
        file = Path(local_file)
        self.container.upload({self._full(artifact_path, file.name): file})

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload a folder's files, at any depth, into a folder."""
        files = {}
        for root, _, names in os.walk(local_dir):
            relative = PurePosixPath(Path(root).relative_to(local_dir).as_posix())
            for name in sorted(names):
                path = self._full(artifact_path, (relative / name).as_posix())
                files[path] = Path(root) / name
        self.container.upload(files)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return files and folders directly in a folder; none for a file.

        A file whose upload failed, and a folder of only such files, are left out.
        """
        folder = self._full(path)
        files: list[str] = []
        folders: dict[str, list[str]] = {}
        start = len(folder) + 1 if folder else 0
        for found in self._paths(folder):
            name, slash, _ = found[start:].partition("/")
            if slash:
                folders.setdefault(name, []).append(found)
            else:
                files.append(found)
        sizes = self.container.sizes(files)
        infos = [FileInfo(self._relative(file), False, size) for file, size in sizes.items()]
        for name, inside in folders.items():
            # One that is there is enough; usually it is the first.
            if any(self.container.size(file) is not None for file in inside):
                at = f"{folder}/{name}" if folder else name
                infos.append(FileInfo(self._relative(at), True, None))
        return sorted(infos, key=lambda info: str(info.path))

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file or a folder, and return where it is."""
        found: str = super().download_artifacts(  # type: ignore[no-untyped-call]
            artifact_path or "", dst_path
        )
        return found

    def _paths(self, folder: str) -> list[str]:
        """Return what is registered in a folder; of a whole run without what the store keeps."""
        paths = self.container.paths(folder)
        return paths if folder else [path for path in paths if not path.startswith(OWN_FOLDER)]

    def _is_directory(self, artifact_path: str) -> bool:
        return bool(self.container.paths(self._full(artifact_path)))

    def _iter_artifacts_recursive(self, path: str) -> Iterator[FileInfo]:
        """Yield all files of a folder from one listing, not from one of each folder."""
        sizes = self.container.sizes(self._paths(self._full(path)))
        for file, size in sizes.items():
            yield FileInfo(self._relative(file), False, size)

    def _download_file(self, remote_file_path: str, local_path: str, **_: Any) -> None:
        self.container.download(self._full(remote_file_path), local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Raise an error: Azure ML keeps an artifact as long as its run."""
        raise MlflowException("artifacts in Azure ML cannot be deleted; delete their run")

    def _full(self, *parts: str | None) -> str:
        """Return a path in the container for one relative to this repository."""
        given = [part.replace("\\", "/").strip("/") for part in (self.root, *parts) if part]
        path = "/".join(part for part in given if part not in ("", "."))
        if ".." in path.split("/"):
            raise MlflowException(
                f"artifact path must stay in its run: got {path!r}", INVALID_PARAMETER_VALUE
            )
        return path

    def _relative(self, path: str) -> str:
        return path[len(self.root) + 1 :] if self.root else path


def _workspace_uri(*uris: str | None) -> str:
    """Return the first URI that names a workspace, MLflow's global ones last."""
    for uri in uris:
        if names_workspace(uri):
            return str(uri)
    for uri in (mlflow.get_registry_uri(), mlflow.get_tracking_uri()):
        if names_workspace(uri):
            return str(uri)
    raise MlflowException(
        f"artifact URI must name its workspace: got {uris[0]!r}; set the registry URI to the "
        "workspace's, for example with mlflow.set_registry_uri",
        INVALID_PARAMETER_VALUE,
    )


def _place(artifact_uri: str, workspace_uri: str) -> tuple[ArtifactContainer, str]:
    """Return the container and the path in it."""
    context = context_of(workspace_uri)
    of_run = run_parts(artifact_uri)
    if of_run:
        experiment, run_id, path = of_run
        return _run_container(context, experiment, run_id), path.strip("/")
    parts = artifact_uri.split("?")[0].partition("://")[2].split("/", 3)
    if parts[0] != "artifacts" or len(parts) < 3:
        raise MlflowException(
            f"artifact URI must be of a run or of an upload: got {artifact_uri!r}",
            INVALID_PARAMETER_VALUE,
        )
    return _upload_container(context, parts[1], parts[2]), "/".join(parts[3:]).strip("/")


# One object for one container, so that what was seen there is remembered.
@lru_cache(maxsize=256)
def _run_container(context: Any, experiment: str, run_id: str) -> ArtifactContainer:
    return ArtifactContainer.of_run(context, experiment, run_id)


@lru_cache(maxsize=256)
def _upload_container(context: Any, origin: str, container: str) -> ArtifactContainer:
    return ArtifactContainer.of_upload(context, origin, container)


def new_upload(workspace_uri: str, name: str) -> AmlArtifactRepository:
    """Return an empty place for files without a run.

    Args:
        workspace_uri: Registry or tracking URI of the workspace.
        name: Of the folder, for example "model".
    """
    container = f"{datetime.now(UTC):%y%m%dT%H%M%S}-{uuid4().hex[:8]}"
    return AmlArtifactRepository(
        f"azureml://artifacts/LocalUpload/{container}/{name}", registry_uri=workspace_uri
    )


def container_of(artifact_uri: str) -> ArtifactContainer:
    """Return the container of a run's artifacts, by a URI that names the workspace."""
    return _place(artifact_uri, artifact_uri)[0]
