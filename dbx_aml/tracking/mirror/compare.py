"""Every difference between a source run and its mirrored run, point by point and byte by byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Run

from dbx_aml.models import lineage
from dbx_aml.tracking.mirror.artifacts import different_files, list_files
from dbx_aml.tracking.mirror.experiments import MirroredExperiments
from dbx_aml.tracking.mirror.logged_models import (
    copies_by_source,
    different_model_values,
    logged_models_of_run,
    model_folders,
)
from dbx_aml.tracking.mirror.metric_points import MetricPoint, MetricPoints
from dbx_aml.tracking.mirror.metrics import point_pages, read_existing_points
from dbx_aml.tracking.mirror.mirrored_runs import MirroredRuns
from dbx_aml.tracking.mirror.run_data import different_values, expected_tags
from dbx_aml.tracking.mirror.run_states import RunStates
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
        comparison = _Comparison(source, destination, source_run.info.run_id)
        if mirrored_run is None:
            return [comparison.difference("run", source_run.info.run_id, "present", None)]
        parent_id = mirrored_runs.find_parent_id(source_run)
        return [
            *_compare_experiment(mirrored_runs.experiments, comparison, source_run, mirrored_run),
            *comparison.compare_run(source_run, mirrored_run, parent_id),
        ]

    with ThreadPoolExecutor(_RUNS_AT_ONCE) as pool:
        for differences in pool.map(compare_run, runs):
            yield from differences


def compare_models_without_run(
    source: MlflowServer, destination: MlflowServer, experiment_ids: Sequence[str]
) -> Iterator[Difference]:
    """Yield all differences of logged models without a run, of experiments that are mirrored."""
    states = RunStates(source, destination, experiment_ids)
    for model in states.models.get(None, []):
        experiment = states.experiments.find(model.experiment_id)
        if experiment is not None:
            copies = states.copies_without_run(experiment.experiment_id)
            comparison = _Comparison(source, destination, model.model_id)
            yield from comparison.compare_model(model, copies.get(model.model_id))


def _compare_experiment(
    experiments: MirroredExperiments, comparison: _Comparison, source_run: Run, mirrored_run: Run
) -> Iterator[Difference]:
    experiment_id = source_run.info.experiment_id
    experiment = experiments.find(experiment_id)
    name = experiments.destination_name(experiment_id)
    if experiment is None or experiment.experiment_id != mirrored_run.info.experiment_id:
        yield comparison.difference(
            "experiment", "id", name, f"experiment {mirrored_run.info.experiment_id}"
        )
    elif experiment.name != name:
        yield comparison.difference("experiment", "name", name, experiment.name)


class _Comparison:
    """Comparison of a run, or of a logged model without a run.

    Args:
        source: Server of the source run.
        destination: Server of the mirrored run.
        source_id: Id of the source run, or of the logged model.
    """

    def __init__(self, source: MlflowServer, destination: MlflowServer, source_id: str) -> None:
        self._source = source
        self._destination = destination
        self._source_id = source_id

    def difference(self, kind: str, name: str, source: Any, destination: Any) -> Difference:
        """Return a difference; None is no value."""
        return Difference(
            run_id=self._source_id,
            kind=kind,
            name=name,
            source="" if source is None else str(source),
            destination="" if destination is None else str(destination),
        )

    def compare_run(
        self, source_run: Run, mirrored_run: Run, parent_id: str | None
    ) -> Iterator[Difference]:
        """Yield the differences between a source run and its mirrored run."""
        run_tags = {
            **expected_tags(self._destination, source_run, parent_id),
            lineage.SOURCE_RUN_ID: source_run.info.run_id,
        }
        for values in different_values(source_run, mirrored_run, run_tags):
            yield self.difference(*values)
        for key in sorted({*source_run.data.metrics, *mirrored_run.data.metrics}):
            yield from self._metric(source_run, mirrored_run, key)
        models = logged_models_of_run(self._source, source_run)
        yield from self._files(
            "artifact",
            source_run.info.artifact_uri,
            mirrored_run.info.artifact_uri,
            skipped_folders=model_folders(models, source_run),
        )
        copies = copies_by_source(logged_models_of_run(self._destination, mirrored_run))
        for model in models:
            yield from self.compare_model(model, copies.get(model.model_id))

    def _metric(self, source_run: Run, mirrored_run: Run, key: str) -> Iterator[Difference]:
        existing = read_existing_points(self._destination, mirrored_run, key)
        source_points = MetricPoints()
        first_missing: MetricPoint | None = None
        missing = 0
        if key in source_run.data.metrics:
            for page, _ in point_pages(self._source, source_run.info.run_id, key):
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

    def compare_model(self, model: Any, copied_model: Any | None) -> Iterator[Difference]:
        """Yield the differences between a logged model and its copy."""
        if copied_model is None:
            yield self.difference("model", model.name, model.model_id, None)
            return
        for kind, name, source, destination in different_model_values(
            model, copied_model, self._destination
        ):
            label = f"{model.name}/{name}" if name else model.name
            yield self.difference(kind, label, source, destination)
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
        differences = different_files(
            source_files,
            self._destination.artifact_repository(destination_uri),
            list_files(source_files, skipped_folders),
            compares_content=True,
        )
        for path, texts in differences.items():
            yield self.difference(kind, prefix + path, *texts)
