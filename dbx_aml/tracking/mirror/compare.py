"""Every difference between a source run and its mirrored run, point by point and byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror.artifacts import file_digest, list_files
from dbx_aml.tracking.mirror.logged_models import logged_models_of_run, model_folders
from dbx_aml.tracking.mirror.metric_points import MetricPoint, MetricPoints
from dbx_aml.tracking.mirror.metrics import point_pages, read_existing_points
from dbx_aml.tracking.mirror.mirrored_runs import MirroredRuns
from dbx_aml.tracking.mirror.run_data import expected_tags, missing_datasets
from dbx_aml.tracking.mirror.server import MlflowServer

_RUNS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A value that differs between a source run and its mirrored run.

    Args:
        run_id: Id of the source run.
        kind: For example "metric".
        name: Name of the metric, param, tag or file.
        source: Value at the source as text, empty for no value.
        destination: Value at the destination as text, empty for no value.
    """

    run_id: str
    kind: str
    name: str
    source: str
    destination: str


def compare_runs(
    source: MlflowServer, destination: MlflowServer, runs: Iterable[Run]
) -> Iterator[Difference]:
    """Yield all differences between source runs and their mirrored runs; write nothing."""
    mirrored_runs = MirroredRuns(source, destination)

    def compare_run(source_run: Run) -> list[Difference]:
        mirrored_run = mirrored_runs.find(source_run)
        comparison = _RunDifferences(source, destination, source_run)
        if mirrored_run is None:
            return [comparison.difference("run", source_run.info.run_id, "present", None)]
        parent_id = mirrored_runs.find_parent_id(source_run)
        return list(comparison.differences(mirrored_run, parent_id))

    with ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
        for differences in pool.map(compare_run, runs):
            yield from differences


class _RunDifferences:
    """Differences of one source run.

    Args:
        source: Server of the source run.
        destination: Server of the mirrored run.
        source_run: Run on the source.
    """

    def __init__(self, source: MlflowServer, destination: MlflowServer, source_run: Run) -> None:
        self._source = source
        self._destination = destination
        self._source_run = source_run

    def difference(self, kind: str, name: str, source: Any, destination: Any) -> Difference:
        """Return a difference of this run; None is no value."""
        return Difference(
            run_id=self._source_run.info.run_id,
            kind=kind,
            name=name,
            source="" if source is None else str(source),
            destination="" if destination is None else str(destination),
        )

    def differences(self, mirrored_run: Run, parent_id: str | None) -> Iterator[Difference]:
        """Yield the differences between the source run and its mirrored run."""
        for kind, name, source, destination in self._values(mirrored_run, parent_id):
            if source != destination:
                yield self.difference(kind, name, source, destination)
        for key in sorted({*self._source_run.data.metrics, *mirrored_run.data.metrics}):
            yield from self._metric(mirrored_run, key)
        yield from self._artifacts_and_models(mirrored_run)

    def _values(
        self, mirrored_run: Run, parent_id: str | None
    ) -> Iterator[tuple[str, str, Any, Any]]:
        source_run = self._source_run
        for name in ("status", "start_time", "end_time", "run_name"):
            yield "run", name, getattr(source_run.info, name), getattr(mirrored_run.info, name)
        source_params, params = source_run.data.params, mirrored_run.data.params
        for key in sorted({*source_params, *params}):
            yield "param", key, source_params.get(key), params.get(key)
        run_tags = {
            **expected_tags(self._destination, source_run, parent_id),
            lineage.SOURCE_RUN_ID: source_run.info.run_id,
        }
        for key, value in run_tags.items():
            yield "tag", key, value, mirrored_run.data.tags.get(key)
        for entry in missing_datasets(source_run, mirrored_run):
            yield "dataset", entry.dataset.name, entry.dataset.digest, None

    def _metric(self, mirrored_run: Run, key: str) -> Iterator[Difference]:
        existing = read_existing_points(self._destination, mirrored_run, key)
        source_points = MetricPoints()
        first_missing: MetricPoint | None = None
        missing = 0
        if key in self._source_run.data.metrics:
            for page, _ in point_pages(self._source, self._source_run.info.run_id, key):
                for point in page:
                    if source_points.add(point) and point not in existing:
                        missing += 1
                        first_missing = first_missing or point
        source_count, count = source_points.digest.count, existing.digest.count
        if first_missing:
            value, _, step = first_missing
            example = f"{source_count} points, with {value!r} at step {step}"
            yield self.difference("metric", key, example, f"{count}, {missing} missing")
        elif source_count != count:
            yield self.difference("metric", key, f"{source_count} points", f"{count} points")

    def _artifacts_and_models(self, mirrored_run: Run) -> Iterator[Difference]:
        models = logged_models_of_run(self._source, self._source_run)
        yield from self._files(
            "artifact",
            self._source_run.info.artifact_uri,
            mirrored_run.info.artifact_uri,
            skipped_folders=model_folders(models, self._source_run),
        )
        copies = {
            copied_model.tags.get(lineage.SOURCE_LOGGED_MODEL_ID): copied_model
            for copied_model in logged_models_of_run(self._destination, mirrored_run)
        }
        for model in models:
            copied_model = copies.get(model.model_id)
            if copied_model is None:
                yield self.difference("model", model.name, model.model_id, None)
                continue
            if model.status != copied_model.status:
                yield self.difference("model", model.name, model.status, copied_model.status)
            yield from self._files(
                "model file",
                model.artifact_location,
                copied_model.artifact_location,
                prefix=f"{model.name}/",
            )

    def _files(
        self,
        kind: str,
        source_uri: str,
        destination_uri: str,
        *,
        prefix: str = "",
        skipped_folders: tuple[str, ...] = (),
    ) -> Iterator[Difference]:
        source_files = self._source.artifact_repository(source_uri)
        destination_files = self._destination.artifact_repository(destination_uri)
        existing = list_files(destination_files)
        for path, size in sorted(list_files(source_files).items()):
            if path.startswith(skipped_folders):
                continue
            source_text, text = f"{size} bytes", None
            if path in existing:
                text = f"{existing[path]} bytes"
            if source_text == text:
                source_text = file_digest(source_files, path)
                text = file_digest(destination_files, path)
            if source_text != text:
                yield self.difference(kind, prefix + path, source_text, text)
