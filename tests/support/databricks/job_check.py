"""What a job and its tasks need: what the service refuses at once, what only a run finds out."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.databricks.boot import Boot
from tests.support.databricks.route import invalid
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles, plain

_FILES = ("/Workspace/", "/Volumes/", "/Users/", "/Shared/")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings as the service does when a job is made or changed.

    Raises:
        Problem: A task depends on none, or names a cluster or an environment that is not there.
    """
    tasks = settings.get("tasks", [])
    keys = {task.get("task_key") for task in tasks}
    known = {
        kind: {one[f"{kind}_key"] for one in settings.get(f"{kind}s", [])}
        for kind in ("job_cluster", "environment")
    }
    for task in tasks:
        for on in task.get("depends_on", []):
            if on["task_key"] not in keys:
                raise invalid(f"Task '{task['task_key']}' depends on unknown '{on['task_key']}'")
        for kind, names in known.items():
            asked = task.get(f"{kind}_key")
            if asked is not None and asked not in names:
                raise invalid(f"{kind} '{asked}' is not defined in field '{kind}s'.")
        is_free = {"job_cluster_key", "existing_cluster_id", "new_cluster", "environment_key"}
        if not task.keys() & {*is_free, "notebook_task", "sql_task", "run_job_task"}:
            raise invalid(f"Task '{task['task_key']}' must have a cluster or an environment.")


class TaskCheck:
    """Whether a task finds what it needs when it is its turn.

    Args:
        boot: Starts its cluster.
        files: Where notebooks and wheels are.
        volumes: Where wheels are.
    """

    def __init__(self, boot: Boot, files: WorkspaceFiles, volumes: Volumes) -> None:
        self._boot = boot
        self._files = files
        self._volumes = volumes

    def why_not(
        self, task: Mapping[str, Any], settings: Mapping[str, Any], run_id: int
    ) -> str | None:
        """Return why a task cannot start; None where it can."""
        path = task.get("notebook_task", {}).get("notebook_path")
        if path is not None:
            item = self._files.items.get(plain(path))
            if item is None or item.kind != "NOTEBOOK":
                return f"Unable to access the notebook {path!r}."
        for file in _files_of(task, settings):
            if file not in self._volumes.files and self._files.content(file) is None:
                return f"Library installation failed: {file} does not exist."
        cluster = _cluster_of(task, settings)
        if cluster is None:
            return None
        return self._boot.run(f"job-{run_id}", cluster, lambda *_, **__: None)


def _files_of(task: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the wheels that a task asks for by a path."""
    for library in task.get("libraries", []):
        yield from (path for kind, path in library.items() if kind in ("whl", "requirements"))
    for one in settings.get("environments", []):
        if one["environment_key"] == task.get("environment_key"):
            for text in one.get("spec", {}).get("dependencies", []):
                # Extras may follow the path.
                path = text.partition("[")[0]
                if path.startswith(_FILES):
                    yield path


def _cluster_of(task: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = task.get("new_cluster")
    for one in settings.get("job_clusters", []):
        if one["job_cluster_key"] == task.get("job_cluster_key"):
            found = one["new_cluster"]
    return found if found is None or isinstance(found, Mapping) else None
