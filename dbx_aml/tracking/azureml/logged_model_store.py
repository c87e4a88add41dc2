"""Logged models of MLflow 3 in Azure ML: documents in the tags of their run.

The files of a logged model lie in the run, as in MLflow 2. A client without this package sees an
ordinary run with a model in it, and `runs:/<run>/<name>` has the same meaning for both. If two
programs change one model at the same moment, the last write wins. Values of metrics are never lost:
each program keeps them in tags of its own, see `logged_model_values`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.time import get_current_time_millis

from dbx_aml._common.errors import is_not_found
from dbx_aml._common.http import paged
from dbx_aml._common.paths import check_relative_path
from dbx_aml.tracking.azureml.logged_model_values import (
    MetricValue,
    ValueWriter,
    ValueWriters,
    check_values,
)
from dbx_aml.tracking.azureml.mlflow_calls import mlflow_errors
from dbx_aml.tracking.azureml.run_inputs_store import RunInputsStore, read_document
from dbx_aml.tracking.azureml.tag_documents import (
    HAS_LOGGED_MODELS,
    PLACEHOLDER_RUN,
    document_tags,
    logged_model_keys,
    value_keys,
)

try:
    from mlflow.entities import LoggedModelStatus

    from dbx_aml.tracking.azureml import logged_model_document as documents
    from dbx_aml.tracking.azureml.logged_model_search import LoggedModelSearch
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
        self._value_writers = ValueWriters()
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
        name = name or _generate_random_name()
        with mlflow_errors("name of a logged model is that of its folder: "):
            check_relative_path(name)
        created = get_current_time_millis()
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
        run, tags, document = self._read_document(model_id)
        if document.get("deleted") and not allow_deleted:
            raise _model_not_found(model_id)
        return self._to_logged_model(model_id, document, run, tags)

    def finalize_logged_model(self, model_id: str, status: Any) -> Any:
        """Set the status of a logged model; this ends a placeholder run."""
        model = self._change_document(
            model_id, lambda document: document.update(status=LoggedModelStatus(status))
        )
        if model.source_run_id is None and status != LoggedModelStatus.PENDING:
            is_ready = status == LoggedModelStatus.READY
            run_status = RunStatus.FINISHED if is_ready else RunStatus.FAILED
            run_id, _ = documents.split_model_id(model_id)
            self.update_run_info(run_id, run_status, get_current_time_millis(), None)
        return model

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a logged model as deleted; its files stay as long as its run."""
        self._change_document(
            model_id, lambda document: document.update(deleted=get_current_time_millis())
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
        matching = LoggedModelSearch.filter_logged_models(models, filter_string, datasets)
        ordered = LoggedModelSearch.sort(matching, order_by)  # type: ignore[no-untyped-call]
        page, token = LoggedModelSearch.paginate(  # type: ignore[no-untyped-call]
            ordered, page_token, max_results or _MODELS_PER_PAGE
        )
        return PagedList(page, token)

    def folder_of_model(self, run_id: str, name: str) -> str | None:
        """Return the folder of the newest model with a name in a run; None without a model."""
        run = self._get_stored_run(run_id)
        documents_by_id = self._documents_of_run(run, self._all_tags(run))
        named = [document for document in documents_by_id.values() if document["name"] == name]
        if not named:
            return None
        return str(max(named, key=lambda document: document["created"])["folder"])

    def model_in_folder(self, run_id: str, folder: str) -> str | None:
        """Return the identifier of the model in a folder of a run; None without a model."""
        run = self._get_stored_run(run_id)
        documents_by_id = self._documents_of_run(run, self._all_tags(run))
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
        """Log metrics, parameters and tags; a metric with a model also as a value of the model."""
        model_metrics = [metric for metric in metrics if getattr(metric, "model_id", None)]
        if not model_metrics:
            super().log_batch(run_id, metrics, params, tags)
            return
        # MLflow reads the metrics of a run and logs them again for the model. The run has these
        # values already.
        new_metrics = [
            metric
            for metric in metrics
            if not metric.model_id or _metric_key(run_id, metric) not in self._read_metrics
        ]
        self._log_values(run_id, model_metrics, new_metrics, params, tags)

    def link_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Link values that the run has already to their models."""
        self._log_values(run_id, metrics, [], [], [])

    def _log_values(
        self,
        run_id: str,
        model_metrics: Sequence[Metric],
        metrics: Sequence[Metric],
        params: Sequence[Any],
        tags: Sequence[Any],
    ) -> None:
        """Log values of models in one call with metrics, parameters and tags of the run."""
        # A model on another server keeps its own metrics.
        linked = [item for item in model_metrics if documents.is_azureml_model_id(item.model_id)]
        tags_by_run: dict[str, list[RunTag]] = {run_id: list(tags)}
        with self._value_writers.borrow() as writer:
            values = writer.with_metrics(run_id, linked)
            unsent = set()
            for model_id, model_values in values.items():
                model_run_id, model_key = documents.split_model_id(model_id)
                value_tags = writer.tags(model_key, model_values)
                # An upload for each step would slow a program down.
                if self._needs_upload(model_run_id, value_tags) and writer.has_all_series(
                    model_id, model_values
                ):
                    unsent.add(model_id)
                else:
                    tags_by_run.setdefault(model_run_id, []).extend(value_tags)
            run_tags = tags_by_run.pop(run_id)
            if metrics or params or run_tags:
                super().log_batch(run_id, metrics, params, run_tags)
            for model_run_id, value_tags in tags_by_run.items():
                super().log_batch(model_run_id, [], [], value_tags)
            writer.values |= values
            writer.unsent = unsent | (writer.unsent - values.keys())

    def get_metric_history(self, run_id: str, metric_key: str, *args: Any, **kwargs: Any) -> Any:
        """Return all values of a metric."""
        history = super().get_metric_history(run_id, metric_key, *args, **kwargs)
        for metric in history[-_MAX_READ_METRICS:]:
            self._read_metrics[_metric_key(run_id, metric)] = None
        while len(self._read_metrics) > _MAX_READ_METRICS:
            self._read_metrics.pop(next(iter(self._read_metrics)))
        return history

    def update_run_info(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """Change a run after the values of its models have been sent."""
        with self._value_writers.borrow_all() as writers:
            for writer in writers:
                self._send_values(writer, run_id)
        return super().update_run_info(run_id, *args, **kwargs)

    def _send_values(self, writer: ValueWriter, run_id: str) -> None:
        """Send the unsent values that were logged to models of a run, or in that run."""
        for model_id in list(writer.unsent):
            values = writer.values[model_id]
            model_run_id, model_key = documents.split_model_id(model_id)
            if run_id in (model_run_id, *(value[6] for value in values)):
                super().log_batch(model_run_id, [], [], writer.tags(model_key, values))
                writer.unsent.discard(model_id)

    def _change_document(self, model_id: str, change: Callable[[Any], None]) -> Any:
        """Change the document of a model; return the model."""
        with self._document_lock:
            run, tags, document = self._read_document(model_id)
            change(document)
            document["status"] = LoggedModelStatus(document["status"]).value
            document["updated"] = get_current_time_millis()
            self._write_document(model_id, document)
            return self._to_logged_model(model_id, document, run, tags)

    def _read_document(self, model_id: str) -> tuple[Run, dict[str, str], Any]:
        """Return a model's run, the tags of this run, and the model's document."""
        run_id, key = documents.split_model_id(model_id)
        try:
            run = self._get_stored_run(run_id)
        except MlflowException as error:
            if not is_not_found(error):
                raise
            raise _model_not_found(model_id) from error
        tags = self._all_tags(run)
        document = read_document(run_id, key, tags, documents.check_document)
        if document is None:
            raise _model_not_found(model_id)
        return run, tags, document

    def _to_logged_model(
        self, model_id: str, document: Any, run: Run, tags: Mapping[str, str]
    ) -> Any:
        """Return MLflow's logged model for a document, with the values of all writers."""
        run_id, model_key = documents.split_model_id(model_id)
        found = [
            self._readable_document(run_id, key, tags, check_values) or {}
            for key in value_keys(model_key, tags)
        ]
        values: list[MetricValue] = [
            value for written in found for value in written.get("values", [])
        ]
        return documents.to_logged_model(document, model_id, run, values)

    def _write_document(self, model_id: str, document: Any, *further_tags: RunTag) -> None:
        run_id, key = documents.split_model_id(model_id)
        tags = [RunTag(name, text) for name, text in document_tags(key, document).items()]
        self.log_batch(run_id, [], [], [*tags, *further_tags])

    def _documents_of_run(self, run: Run, tags: Mapping[str, str]) -> dict[str, Any]:
        """Return the documents of a run's models by model id, without deleted models."""
        run_id = run.info.run_id
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
        tags = self._all_tags(run)
        return [
            self._to_logged_model(model_id, document, run, tags)
            for model_id, document in self._documents_of_run(run, tags).items()
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
