"""MLflow's view of artifacts in Azure ML: folders, relative paths, only uploaded files.

azureml-mlflow lists every path that begins with the name of a folder, so "model" also has the files
of "model2". Its paths are relative to the run, whatever folder the repository starts at. It takes
the workspace from the global tracking URI, which may lead to another server. This repository takes
the workspace from its own URI.
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

from dbx_aml._common.daemon_threads import DaemonThreadPool
from dbx_aml._common.paths import check_relative_path
from dbx_aml._common.redact import redact, redact_uri
from dbx_aml.link.uris import parse_azureml_uri
from dbx_aml.tracking.azureml.artifact_container import INTERNAL_FOLDER, ArtifactContainer
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors
from dbx_aml.tracking.azureml.service_context import service_context_of, workspace_uri_of


class AmlArtifactRepository(ArtifactRepository):  # type: ignore[misc,unused-ignore]
    """Artifacts below one URI of a workspace.

    Args:
        artifact_uri: URI of a run's artifacts ("azureml://<host>/mlflow/...", with or without a
            path) or of an upload ("azureml://artifacts/LocalUpload/<container>/<path>").
        tracking_uri: Tracking URI; names the workspace of an upload.
        registry_uri: Registry URI; names the workspace of an upload, before the tracking URI.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri)
        self.tracking_uri = tracking_uri
        self.registry_uri = registry_uri
        uris = (registry_uri, tracking_uri, mlflow.get_registry_uri(), mlflow.get_tracking_uri())
        self.context = service_context_of(_workspace_uri(artifact_uri, *uris), *uris)
        self.container, self.root = _container_and_path(artifact_uri, self.context)

    def _create_thread_pool(self) -> DaemonThreadPool:
        return DaemonThreadPool(self.max_workers)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload one file into a folder."""
        file = Path(local_file)
        self.container.upload({self._container_path(artifact_path, file.name): file})

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload the files of a local folder, at any depth, into a folder."""
        self.container.upload(self._files_to_upload(local_dir, artifact_path))

    def log_missing_artifacts(self, local_dir: str) -> None:
        """Upload the files of a local folder that are not there with the same size."""
        files = self._files_to_upload(local_dir, None)
        sizes = self.container.sizes(self.container.list_paths(self.root))
        self.container.upload(
            {path: file for path, file in files.items() if sizes.get(path) != file.stat().st_size}
        )

    def has_newer_content(self) -> bool:
        """Tell whether a file has other content than the service reads at its path."""
        return self.container.has_newer_content(self.root)

    def _files_to_upload(self, local_dir: str, artifact_path: str | None) -> dict[str, Path]:
        """Return the files of a local folder by their paths in the container."""
        files = {}
        for root, _, names in os.walk(local_dir):
            relative = PurePosixPath(Path(root).relative_to(local_dir).as_posix())
            for name in sorted(names):
                path = self._container_path(artifact_path, (relative / name).as_posix())
                files[path] = Path(root) / name
        return files

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return the files and folders directly in a folder; an empty list for a file.

        The list leaves out files whose upload failed, and folders of only such files.
        """
        folder = self._container_path(path)
        files: list[str] = []
        folders: dict[str, list[str]] = {}
        start = len(folder) + 1 if folder else 0
        for file in self._list_paths(folder):
            name, slash, _ = file[start:].partition("/")
            if slash:
                folders.setdefault(name, []).append(file)
            else:
                files.append(file)
        sizes = self.container.sizes(files)
        infos = [FileInfo(self._relative_path(file), False, size) for file, size in sizes.items()]
        for name, files_in_folder in folders.items():
            # The first present file proves that the folder is present.
            if any(self.container.size(file) is not None for file in files_in_folder):
                subfolder = f"{folder}/{name}" if folder else name
                infos.append(FileInfo(self._relative_path(subfolder), True, None))
        return sorted(infos, key=lambda info: str(info.path))

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file or a folder, and return its local path."""
        local_path: str = super().download_artifacts(  # type: ignore[no-untyped-call]
            artifact_path or "", dst_path
        )
        return local_path

    def _list_paths(self, folder: str) -> list[str]:
        """Return the registered paths in a folder; for a whole run without the store's files."""
        paths = self.container.list_paths(folder)
        return paths if folder else [path for path in paths if not path.startswith(INTERNAL_FOLDER)]

    def _is_directory(self, artifact_path: str) -> bool:
        return bool(self.container.list_paths(self._container_path(artifact_path)))

    def _iter_artifacts_recursive(self, path: str) -> Iterator[FileInfo]:
        """Yield all files of a folder from one request, instead of one request a folder."""
        sizes = self.container.sizes(self._list_paths(self._container_path(path)))
        for file, size in sizes.items():
            yield FileInfo(self._relative_path(file), False, size)

    def _download_file(self, remote_file_path: str, local_path: str, **_: Any) -> None:
        self.container.download(self._container_path(remote_file_path), local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Raise an error: Azure ML keeps an artifact as long as its run."""
        raise MlflowException("artifacts in Azure ML cannot be deleted; delete their run")

    def _container_path(self, *names: str | None) -> str:
        """Return the path in the container for a path relative to this repository."""
        folders = [name.replace("\\", "/").strip("/") for name in (self.root, *names) if name]
        path = "/".join(folder for folder in folders if folder not in ("", "."))
        with mlflow_errors():
            return check_relative_path(path) if path else ""

    def _relative_path(self, path: str) -> str:
        return path[len(self.root) + 1 :] if self.root else path


def _workspace_uri(*uris: str | None) -> str:
    """Return the first URI that names a workspace."""
    for uri in uris:
        if parse_azureml_uri(uri):
            return str(uri)
    raise MlflowException(
        f"artifact URI must name its workspace: got {redact(str(uris[0]))!r}; set the registry URI "
        "to the workspace's, for example with mlflow.set_registry_uri",
        INVALID_PARAMETER_VALUE,
    )


def _container_and_path(artifact_uri: str, context: Any) -> tuple[ArtifactContainer, str]:
    """Return the container of an artifact URI, and the path in the container."""
    resource = parse_azureml_uri(artifact_uri)
    if resource and resource.run_artifact:
        experiment, run_id, path = resource.run_artifact
        return _run_container(context, experiment, run_id), path.strip("/")
    names = artifact_uri.split("?")[0].partition("://")[2].split("/", 3)
    if names[0] != "artifacts" or len(names) < 3:
        raise MlflowException(
            f"artifact URI must be of a run or of an upload: got {redact(artifact_uri)!r}",
            INVALID_PARAMETER_VALUE,
        )
    return _upload_container(context, names[1], names[2]), "/".join(names[3:]).strip("/")


# One object for each container, so that it keeps the sizes of present artifacts.
@lru_cache(maxsize=256)
def _run_container(context: Any, experiment: str, run_id: str) -> ArtifactContainer:
    return ArtifactContainer.from_run(context, experiment, run_id)


@lru_cache(maxsize=256)
def _upload_container(context: Any, origin: str, container: str) -> ArtifactContainer:
    return ArtifactContainer.from_upload(context, origin, container)


def create_upload(
    workspace_uri: str, name: str, sha256: str | None = None
) -> AmlArtifactRepository:
    """Return a repository for files without a run, a new one unless the hash is known.

    Args:
        workspace_uri: Registry or tracking URI of the workspace.
        name: Name of the folder, for example "model".
        sha256: Hash over all files, if it is known.
    """
    container = f"{datetime.now(UTC):%y%m%dT%H%M%S}-{uuid4().hex[:8]}"
    if sha256 is not None:
        container = f"dbx-aml-{sha256[:32]}"
    return AmlArtifactRepository(
        f"azureml://artifacts/LocalUpload/{container}/{name}", registry_uri=workspace_uri
    )


def container_of_run(context: Any, run_id: str, artifact_uri: str) -> ArtifactContainer:
    """Return the container of a run's artifacts, in the workspace that the run was read from.

    Args:
        context: Service context of the workspace.
        run_id: Identifier of the run.
        artifact_uri: URI that the service returned with the run.

    Raises:
        MlflowException: The run has its artifacts elsewhere.
    """
    workspace_uri = workspace_uri_of(context)
    resource, workspace = parse_azureml_uri(artifact_uri), parse_azureml_uri(workspace_uri)
    if resource is None or workspace is None or not resource.has_same_names(workspace):
        raise MlflowException(
            f"artifacts of run {run_id} must be in its workspace: got "
            f"{redact_uri(artifact_uri)!r}; report it to the owner of the workspace",
            INVALID_PARAMETER_VALUE,
        )
    return _container_and_path(artifact_uri, service_context_of(artifact_uri, workspace_uri))[0]
