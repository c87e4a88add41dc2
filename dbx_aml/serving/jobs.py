"""Jobs of Azure ML: list them, follow their logs, cancel them, download their files.

Source:
    Azure REST API, "Jobs", version 2025-12-01; Microsoft Learn, "Train models with Azure Machine
    Learning CLI, SDK, and REST API"; azure-ai-ml 1.34 `_job_ops_helper.py`; seen 2026-11.
"""

from __future__ import annotations

import codecs
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from dbx_aml._common.errors import ServiceError, ServingError
from dbx_aml._common.http import send
from dbx_aml._common.paths import resolve_inside, write_atomically
from dbx_aml._common.retry import service_policy
from dbx_aml._common.text import first_line
from dbx_aml.azure.client import error_of_answer, error_of_content
from dbx_aml.link.clouds import check_storage_url
from dbx_aml.link.connected_link import use_link
from dbx_aml.link.link import Link
from dbx_aml.models.registries import AML
from dbx_aml.serving.aml_resources import AmlResources

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

Report = Callable[[str], None]

COMPLETED = "Completed"
_LAST_STATES = frozenset({COMPLETED, "Failed", "Canceled"})
# States after which a job does not go on by itself. One that is paused, or does not respond, can
# still be canceled, and may hold its nodes.
END_STATES = _LAST_STATES | {"NotResponding", "Paused"}
_POLL_S = 2.0
# Most bytes of one request.
_READ_BYTES = 8 * 2**20
# Log of the first process of a job, of Azure ML's common runtime.
_MAIN_LOG = re.compile(r"user_logs/std_log[\D]*[0]*(?:_ps)?\.txt")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as Azure ML showed it when it was read.

    Args:
        name: Name of the job, which is also the id of its MLflow run.
        state: For example "Running" or "Completed".
        display_name: Name for people.
        experiment: Name of its experiment in Azure ML.
        compute: Name of its compute; "" for serverless compute.
        command: Command that it runs.
        parameters: Values of "${{inputs.NAME}}" in the command.
        created_at: Time of the submission as Azure writes it, in UTC.
        page: URL of its page in Azure ML studio.
        tags: Tags of the job.
        resources: Workspace of the job.
    """

    name: str
    state: str
    display_name: str
    experiment: str
    compute: str
    command: str
    parameters: dict[str, str]
    created_at: str
    page: str
    tags: dict[str, str]
    resources: AmlResources = field(repr=False, compare=False)

    @classmethod
    def load(cls, name: str, *, link: Link | None = None) -> Self:
        """Return a job of the link's workspace.

        Args:
            name: Name of the job.
            link: Link that has the workspace; by default the connected link.

        Raises:
            ServingError: There is no such job.
            PermissionDeniedError: The caller may not read it.
        """
        return cls.read(AmlResources.of_link(link), name)

    @classmethod
    def load_all(cls, *, max_results: int | None = None, link: Link | None = None) -> list[Self]:
        """Return the newest jobs of the link's workspace.

        Args:
            max_results: Largest number of jobs; None for all.
            link: Link that has the workspace; by default the connected link.
        """
        return list(islice(cls.iterate(AmlResources.of_link(link)), max_results))

    @classmethod
    def iterate(cls, resources: AmlResources) -> Iterator[Self]:
        """Yield the jobs of a workspace, the newest first."""
        return (cls.of_content(resources, content) for content in resources.list("/jobs"))

    @classmethod
    def read(cls, resources: AmlResources, name: str) -> Self:
        """Return a job of a workspace; errors as of `load`."""
        job = cls.find(resources, name)
        if job is None:
            raise ServingError(
                f"job must exist in workspace {resources.workspace.workspace_name!r}: got "
                f"{name!r}; list the jobs with 'dbx-aml job list'"
            )
        return job

    @classmethod
    def find(cls, resources: AmlResources, name: str) -> Self | None:
        """Return a job of a workspace, None if there is no such job."""
        content = resources.find(job_path(name))
        return None if content is None else cls.of_content(resources, content)

    @classmethod
    def of_content(cls, resources: AmlResources, content: Mapping[str, Any]) -> Self:
        """Return the job that Azure Resource Manager describes."""
        name, properties = str(content["name"]), content["properties"]
        return cls(
            name=name,
            state=str(properties.get("status") or ""),
            display_name=str(properties.get("displayName") or ""),
            experiment=str(properties.get("experimentName") or ""),
            compute=str(properties.get("computeId") or "").rpartition("/")[2],
            command=str(properties.get("command") or ""),
            parameters={
                key: str(value.get("value"))
                for key, value in (properties.get("inputs") or {}).items()
                if value.get("jobInputType") == "literal"
            },
            created_at=str((content.get("systemData") or {}).get("createdAt") or ""),
            page=resources.workspace.run_url(name, tenant_id=resources.tenant_id),
            tags=dict(properties.get("tags") or {}),
            resources=resources,
        )

    @property
    def has_ended(self) -> bool:
        """Whether the job does not go on by itself."""
        return self.state in END_STATES

    @property
    def is_completed(self) -> bool:
        """Whether the job ended well."""
        return self.state == COMPLETED

    def refresh(self) -> Self:
        """Return the job as it is now; errors as of `load`."""
        return type(self).read(self.resources, self.name)

    def follow(self, write: Callable[[str], None], report: Report = lambda state: None) -> Self:
        """Hand on the log while the job runs; return the job after its end.

        Each part of the log comes once, in order. Only new bytes are read.

        Args:
            write: Function that is called with each new part of the log.
            report: Function that is called with the state of the job when it changes.
        """
        reader = _LogReader(self.resources.workspace.cloud)
        for details, is_end in self._iterate_details(report):
            text = reader.read_new(details.get("logFiles") or {}, is_end=is_end)
            if text:
                write(text)
        return self.refresh()

    def wait(self, report: Report = lambda state: None) -> Self:
        """Wait for the end of the job, and return it; the argument is as of `follow`."""
        for _ in self._iterate_details(report):
            pass
        return self.refresh()

    def _iterate_details(self, report: Report) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield the details of the job until its end, and whether it has ended."""
        state = ""
        while True:
            details = self._details()
            # The history may not have a new job yet; a job that was deleted is an error.
            current = str(details.get("status") or self.refresh().state)
            if current != state:
                state = current
                report(state)
            is_end = state in END_STATES
            yield details, is_end
            if is_end:
                return
            time.sleep(_POLL_S)

    def log(self) -> str:
        """Return the log of the job's first process as it is now."""
        reader = _LogReader(self.resources.workspace.cloud)
        return reader.read_new(self._details().get("logFiles") or {}, is_end=True)

    def error(self) -> str:
        """Return the reason of a failure as Azure ML tells it; "" for none."""
        error = self._details().get("error") or {}
        code, message = error_of_content(error if "error" in error else {"error": error})
        return ": ".join(filter(None, (code, message)))

    def cancel(self) -> Self:
        """Cancel the job, wait until it has ended, and return it. An ended job does not change."""
        current = self.refresh()
        if current.state in _LAST_STATES:
            return current
        url = self.resources.url(f"{job_path(self.name)}/cancel")
        self.resources.client.post_operation(url, show_command=f"dbx-aml job show {self.name}")
        return self.wait()

    def download(self, folder: str | Path, report: Report = lambda file: None) -> list[Path]:
        """Download the logs and the artifacts of the job's run; return the paths of the files.

        Args:
            folder: Folder for the files; it is made if it is missing.
            report: Function that is called with the name of each file.

        Raises:
            ServingError: The artifacts cannot be read.
        """
        from mlflow.exceptions import MlflowException

        root = Path(folder)
        log_files = self._details().get("logFiles") or {}
        files = []
        for name, url in sorted(log_files.items()):
            report(name)
            file = resolve_inside(root, name)
            write_atomically(file, _read_blob(url, 0, self.resources.workspace.cloud))
            files.append(file)
        try:
            with use_link(self.resources.link):
                repository = self._artifact_repository()
                for name in _list_files(repository):
                    if name not in log_files:
                        report(name)
                        file = resolve_inside(root, name)
                        file.parent.mkdir(parents=True, exist_ok=True)
                        repository._download_file(name, str(file))
                        files.append(file)
        except MlflowException as err:
            raise ServingError(
                f"artifacts of job {self.name!r} must be readable: got {first_line(err)}"
            ) from err
        return files

    def _artifact_repository(self) -> ArtifactRepository:
        # Imported here: only a download needs MLflow, whose import takes seconds.
        from dbx_aml.tracking.mirror.server import MlflowServer

        server = MlflowServer(self.resources.tracking_uri, AML)
        repository: ArtifactRepository = server.artifact_repository(
            server.get_run(self.name).info.artifact_uri
        )
        return repository

    def _details(self) -> dict[str, Any]:
        """Return what the run history of Azure ML has of the job, with the URLs of its logs."""
        host = urlsplit(self.resources.tracking_uri).netloc
        name = quote(self.name, safe="")
        url = f"https://{host}/history/v1.0{self.resources.arm_id('')}/runs/{name}/details"
        return self.resources.client.find(url) or {}


def _list_files(repository: ArtifactRepository, folder: str | None = None) -> Iterator[str]:
    """Yield the paths of all artifacts in a folder, at any depth."""
    for info in repository.list_artifacts(folder):
        if info.is_dir:
            yield from _list_files(repository, info.path)
        else:
            yield str(info.path)


class _LogReader:
    """Reads the new lines of a job's main log, in whole lines."""

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._size = 0
        # A character may have come in part. A progress bar writes its line again and again.
        self._decoder = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")(errors="replace"), translate=True
        )
        self._line = ""

    def read_new(self, log_files: Mapping[str, str], *, is_end: bool) -> str:
        """Return the new lines.

        Args:
            log_files: URL of each log by its path.
            is_end: Whether no more comes, so that the last line is whole.
        """
        names = sorted(name for name in log_files if _MAIN_LOG.fullmatch(name))
        content = _read_blob(log_files[names[0]], self._size, self._cloud) if names else b""
        self._size += len(content)
        text = self._line + self._decoder.decode(content, is_end)
        length = len(text) if is_end else text.rfind("\n") + 1
        self._line = text[length:]
        return text[:length]


def job_path(name: str) -> str:
    """Return the path of a job below its workspace."""
    return f"/jobs/{quote(name, safe='')}"


def _read_blob(url: str, start: int, cloud: str) -> bytes:
    """Return the bytes of a blob from a position on; none of a blob that has no more."""
    check_storage_url(url, cloud)
    parts = [b""]
    while True:
        headers = {"Range": f"bytes={start}-{start + _READ_BYTES - 1}"}
        response = send("GET", url, service_policy(), headers=headers)
        if response.status_code in (404, 416):
            return b"".join(parts)
        if response.status_code != 206:
            error = error_of_answer(response, "the storage account")
            raise ServiceError(f"log of the job must be readable: {error}")
        parts.append(response.content)
        start += len(response.content)
        if len(response.content) < _READ_BYTES:
            return b"".join(parts)
