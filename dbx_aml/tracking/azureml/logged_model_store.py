"""Logged models of MLflow 3 in Azure ML: documents in the tags of their run.

The files of a logged model lie in the run, as in MLflow 2. A client without this package sees an
ordinary run with a model in it, and `runs:/<run>/<name>` has the same meaning for both. If two
programs change one model at the same moment, the last write wins.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList

from dbx_aml._common.errors import is_not_found
from dbx_aml._common.http import paged
from dbx_aml.tracking.azureml.run_inputs_store import RunInputsStore, read_document
from dbx_aml.tracking.azureml.tag_documents import (
    HAS_LOGGED_MODELS,
    PLACEHOLDER_RUN,
    document_tags,
    logged_model_keys,
)

try:
    from mlflow.entities import LoggedModelStatus
    from mlflow.utils.search_utils import SearchLoggedModelsUtils

    from dbx_aml.tracking.azureml import logged_model_document as documents
except ImportError:  # MLflow 2 has no logged models
    documents = None  # type: ignore[assignment]

_MAX_READ_METRICS = 20_000
_MODELS_PER_PAGE = 100
_PLACEHOLDER_REASON = "this run only carries a logged model that was made without a run"


class LoggedModelStore(RunInputsStore):
    """Logged models of the store for Azure ML.

    Args:
        service_context: Service context of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        # Metric values that are not yet in the documents of their models, by model id.
        self._unwritten_values: dict[str, list[documents.MetricValue]] = {}
        # Metric series that the documents have, by model id.
        self._written_series: dict[str, set[documents.MetricSeries]] = {}
        # Metric values that this process has read from runs.
        self._read_metrics: dict[tuple[Any, ...], None] = {}

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Any = None,
        params: Any = None,
        model_type: str | None = None,
    ) -> Any:
        """Create a logged model in its run; without a run, in a new placeholder run."""
        name = name or documents.random_model_name()
        created = documents.current_time_ms()
        run_id = source_run_id or self._placeholder_run(experiment_id, name, created)
        run = self._get_stored_run(run_id)
        document = {
            "name": name,
            "folder": self._unused_folder(run, name),
            "status": LoggedModelStatus.PENDING.value,
            "created": created,
            "updated": created,
            "tags": _texts_by_key(tags or []),
            "params": _texts_by_key(params or []),
        }
        if model_type:
            document["type"] = model_type
        if not source_run_id:
            document["in_placeholder_run"] = True
        model_id = documents.new_model_id(run_id)
        self._write_document(model_id, document, RunTag(HAS_LOGGED_MODELS, "true"))
        return documents.to_logged_model(document, model_id, run)

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> Any:
        """Return a logged model by its identifier."""
        run, document = self._read_document(model_id)
        if document.get("deleted") and not allow_deleted:
            raise _model_not_found(model_id)
        return documents.to_logged_model(document, model_id, run)

    def finalize_logged_model(self, model_id: str, status: Any) -> Any:
        """Set the status of a logged model; this ends a placeholder run."""
        model = self._change_document(
            model_id, lambda document: document.update(status=LoggedModelStatus(status))
        )
        if model.source_run_id is None and status != LoggedModelStatus.PENDING:
            is_ready = status == LoggedModelStatus.READY
            run_status = RunStatus.FINISHED if is_ready else RunStatus.FAILED
            run_id, _ = documents.split_model_id(model_id)
            self.update_run_info(run_id, run_status, documents.current_time_ms(), None)
        return model

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a logged model as deleted; its files stay as long as its run."""
        self._change_document(
            model_id, lambda document: document.update(deleted=documents.current_time_ms())
        )

    def set_logged_model_tags(self, model_id: str, tags: Any) -> None:
        """Set tags of a logged model."""
        new_tags = _texts_by_key(tags)
        self._change_document(
            model_id, lambda document: document.setdefault("tags", {}).update(new_tags)
        )

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag of a logged model."""

        def remove_tag(document: Any) -> None:
            if document.get("tags", {}).pop(key, None) is None:
                raise MlflowException(
                    f"No tag with key {key!r} found for model {model_id!r}.",
                    RESOURCE_DOES_NOT_EXIST,
                )

        self._change_document(model_id, remove_tag)

    def log_logged_model_params(self, model_id: str, params: Any) -> None:
        """Add parameters to a logged model."""
        new_params = _texts_by_key(params)
        self._change_document(
            model_id, lambda document: document.setdefault("params", {}).update(new_params)
        )

    def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: Any = None,
        max_results: int | None = None,
        order_by: Any = None,
        page_token: str | None = None,
    ) -> Any:
        """Return logged models of experiments, filtered and ordered by MLflow's own rules."""
        run_id = documents.run_of_condition(filter_string)
        if run_id:
            models = self._models_of_run(run_id)
        else:
            models = self._models_of_experiments([str(identifier) for identifier in experiment_ids])
        matching = SearchLoggedModelsUtils.filter_logged_models(models, filter_string, datasets)
        ordered = SearchLoggedModelsUtils.sort(matching, order_by)
        page, token = SearchLoggedModelsUtils.paginate(
            ordered, page_token, max_results or _MODELS_PER_PAGE
        )
        return PagedList(page, token)

    def folder_of_model(self, run_id: str, name: str) -> str | None:
        """Return the folder of the newest model with a name in a run; None without a model."""
        documents_by_id = self._documents_of_run(self._get_stored_run(run_id))
        named = [document for document in documents_by_id.values() if document["name"] == name]
        if not named:
            return None
        return str(max(named, key=lambda document: document["created"])["folder"])

    def model_in_folder(self, run_id: str, folder: str) -> str | None:
        """Return the identifier of the model in a folder of a run; None without a model."""
        documents_by_id = self._documents_of_run(self._get_stored_run(run_id))
        model_ids = (
            model_id
            for model_id, document in documents_by_id.items()
            if document["folder"] == folder
        )
        return next(model_ids, None)

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric, and link it to its model."""
        if getattr(metric, "model_id", None):
            self.log_batch(run_id, [metric], [], [])
        else:
            super().log_metric(run_id, metric)

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Any], tags: Sequence[Any]
    ) -> None:
        """Log metrics, parameters and tags, and link metrics to their models."""
        model_metrics = [metric for metric in metrics if getattr(metric, "model_id", None)]
        if model_metrics:
            # MLflow reads the metrics of a run and logs them again for the model. The run has
            # these values already.
            metrics = [
                metric
                for metric in metrics
                if not metric.model_id or _metric_key(run_id, metric) not in self._read_metrics
            ]
        if metrics or params or tags:
            super().log_batch(run_id, metrics, params, tags)
        if model_metrics:
            self.link_metrics(run_id, model_metrics)

    def get_metric_history(self, run_id: str, metric_key: str, *args: Any, **kwargs: Any) -> Any:
        """Return all values of a metric."""
        history = super().get_metric_history(run_id, metric_key, *args, **kwargs)
        for metric in history[-_MAX_READ_METRICS:]:
            self._read_metrics[_metric_key(run_id, metric)] = None
        while len(self._read_metrics) > _MAX_READ_METRICS:
            self._read_metrics.pop(next(iter(self._read_metrics)))
        return history

    def update_run_info(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """Change a run after the documents of its models have been written."""
        with self._document_lock:
            for model_id, values in list(self._unwritten_values.items()):
                model_run_id, _ = documents.split_model_id(model_id)
                if run_id in (model_run_id, *(value[6] for value in values)):
                    self._write_metric_values(model_id)
        return super().update_run_info(run_id, *args, **kwargs)

    def link_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Link values that the run has already to their models."""
        with self._document_lock:
            changed_model_ids = set()
            for metric in metrics:
                model_id = metric.model_id
                # A model on another server keeps its own metrics.
                if not documents.is_azureml_model_id(model_id):
                    continue
                value = documents.metric_value(metric, run_id)
                values = [*self._unwritten_values.get(model_id, []), value]
                self._unwritten_values[model_id] = documents.latest_per_series(values)
                written_series = self._written_series.setdefault(model_id, set())
                series = documents.series_of(value)
                if series not in written_series:
                    written_series.add(series)
                    changed_model_ids.add(model_id)
            for model_id in changed_model_ids:
                self._write_metric_values(model_id)

    def _write_metric_values(self, model_id: str) -> None:
        self._change_document(model_id, lambda document: None)

    def _change_document(self, model_id: str, change: Callable[[Any], None]) -> Any:
        """Change the document of a model with its unwritten metric values; return the model."""
        with self._document_lock:
            run, document = self._read_document(model_id)
            change(document)
            document["status"] = LoggedModelStatus(document["status"]).value
            document["updated"] = documents.current_time_ms()
            self._write_document(model_id, document)
            self._unwritten_values.pop(model_id, None)
            return documents.to_logged_model(document, model_id, run)

    def _read_document(self, model_id: str) -> tuple[Run, Any]:
        """Return a model's run and document, with the metric values that are not yet written."""
        run_id, key = documents.split_model_id(model_id)
        try:
            run = self._get_stored_run(run_id)
        except MlflowException as error:
            if not is_not_found(error):
                raise
            raise _model_not_found(model_id) from error
        document = read_document(run_id, key, self._all_tags(run), documents.check_document)
        if document is None:
            raise _model_not_found(model_id)
        values = [*document.get("metrics", []), *self._unwritten_values.get(model_id, [])]
        if values:
            document["metrics"] = documents.latest_per_series(values)
        return run, document

    def _write_document(self, model_id: str, document: Any, *further_tags: RunTag) -> None:
        run_id, key = documents.split_model_id(model_id)
        tags = [RunTag(name, text) for name, text in document_tags(key, document).items()]
        self.log_batch(run_id, [], [], [*tags, *further_tags])

    def _documents_of_run(self, run: Run) -> dict[str, Any]:
        """Return the documents of a run's models by model id, without deleted models."""
        tags, run_id = self._all_tags(run), run.info.run_id
        documents_by_id = {
            documents.model_id_from_key(run_id, key): self._readable_model(run_id, key, tags)
            for key in logged_model_keys(tags)
        }
        return {
            model_id: document
            for model_id, document in documents_by_id.items()
            if document and not document.get("deleted")
        }

    def _readable_model(self, run_id: str, key: str, tags: Mapping[str, str]) -> Any:
        return self._readable_document(run_id, key, tags, documents.check_document)

    def _models_of_experiments(self, experiment_ids: list[str]) -> list[Any]:
        condition = f"tags.`{HAS_LOGGED_MODELS}` = 'true'"
        runs = paged(
            lambda token: self._search_stored_runs(experiment_ids, condition, 1000, token),
            "runs/search",
        )
        return [model for run in runs for model in self._models_in_tags(run)]

    def _models_of_run(self, run_id: str) -> list[Any]:
        try:
            return self._models_in_tags(self._get_stored_run(run_id))
        except MlflowException as error:
            if is_not_found(error):
                return []
            raise

    def _models_in_tags(self, run: Run) -> list[Any]:
        return [
            documents.to_logged_model(document, model_id, run)
            for model_id, document in self._documents_of_run(run).items()
        ]

    def _placeholder_run(self, experiment_id: str, name: str, start_time: int) -> str:
        tag = RunTag(PLACEHOLDER_RUN, _PLACEHOLDER_REASON)
        return str(self.create_run(experiment_id, "", start_time, [tag], name).info.run_id)

    def _unused_folder(self, run: Run, name: str) -> str:
        """Return a folder for the files of a model: its name, if that folder is not used."""
        tags = self._all_tags(run)
        used = {
            (self._readable_model(run.info.run_id, key, tags) or {}).get("folder")
            for key in logged_model_keys(tags)
        }
        if name not in used and not self._container_of_run(run.info.run_id).list_paths(name):
            return name
        return f"{name}-{documents.new_model_id('')[-8:]}"


def _texts_by_key(items: Iterable[Any]) -> dict[str, str]:
    """Return the values of tags or parameters by their keys."""
    return {item.key: str(item.value) for item in items}


def _metric_key(run_id: str, metric: Metric) -> tuple[Any, ...]:
    return run_id, metric.key, metric.value, metric.timestamp, metric.step


def _model_not_found(model_id: str) -> MlflowException:
    return MlflowException(f"Logged model {model_id!r} not found.", RESOURCE_DOES_NOT_EXIST)
