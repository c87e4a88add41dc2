"""The requirements of a job and its tasks, checked when a job is saved and when a task starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.databricks.boot import Boot
from tests.support.databricks.principals import check_notifications
from tests.support.databricks.route import invalid_parameter
from tests.support.databricks.volume import Volumes
from tests.support.databricks.workspace_file import WorkspaceFiles, without_prefix

_FILES = ("/Workspace/", "/Volumes/", "/Users/", "/Shared/")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings as the service does when a job is made or changed.

    Raises:
        Problem: A task depends on an unknown task, or names an unknown cluster or environment; or a
            notification goes to something that is no e-mail address.
    """
    check_notifications(settings)
    tasks = settings.get("tasks", [])
    keys = {task.get("task_key") for task in tasks}
    keys_by_kind = {
        kind: {entry[f"{kind}_key"] for entry in settings.get(f"{kind}s", [])}
        for kind in ("job_cluster", "environment")
    }
    for task in tasks:
        for dependency in task.get("depends_on", []):
            if dependency["task_key"] not in keys:
                raise invalid_parameter(
                    f"Task '{task['task_key']}' depends on unknown '{dependency['task_key']}'"
                )
        for kind, names in keys_by_kind.items():
            key = task.get(f"{kind}_key")
            if key is not None and key not in names:
                raise invalid_parameter(f"{kind} '{key}' is not defined in field '{kind}s'.")
        is_free = {"job_cluster_key", "existing_cluster_id", "new_cluster", "environment_key"}
        if not task.keys() & {*is_free, "notebook_task", "sql_task", "run_job_task"}:
            raise invalid_parameter(
                f"Task '{task['task_key']}' must have a cluster or an environment."
            )


class TaskCheck:
    """Checks that a task finds its notebook, its wheels and its init scripts when it starts."""

    def __init__(self, boot: Boot, files: WorkspaceFiles, volumes: Volumes) -> None:
        self._boot = boot
        self._files = files
        self._volumes = volumes

    def start_error(
        self, task: Mapping[str, Any], settings: Mapping[str, Any], run_id: int
    ) -> str | None:
        """Return the error of a task that cannot start, None for any other task."""
        path = task.get("notebook_task", {}).get("notebook_path")
        if path is not None:
            item = self._files.items.get(without_prefix(path))
            if item is None or item.kind != "NOTEBOOK":
                return f"Unable to access the notebook {path!r}."
        for file in _files_of(task, settings):
            if file not in self._volumes.files and self._files.content(file) is None:
                return f"Library installation failed: {file} does not exist."
        cluster = _cluster_of(task, settings)
        if cluster is None:
            return None
        return self._boot.run_scripts(f"job-{run_id}", cluster)


def _files_of(task: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of a task's wheels."""
    for library in task.get("libraries", []):
        yield from (path for kind, path in library.items() if kind in ("whl", "requirements"))
    for entry in settings.get("environments", []):
        if entry["environment_key"] == task.get("environment_key"):
            for text in entry.get("spec", {}).get("dependencies", []):
                # Extras may follow the path.
                path = text.partition("[")[0]
                if path.startswith(_FILES):
                    yield path


def _cluster_of(task: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    cluster = task.get("new_cluster")
    for entry in settings.get("job_clusters", []):
        if entry["job_cluster_key"] == task.get("job_cluster_key"):
            cluster = entry["new_cluster"]
    return cluster if cluster is None or isinstance(cluster, Mapping) else None
