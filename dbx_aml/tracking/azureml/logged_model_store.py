"""Logged models of MLflow 3 in Azure ML, which has none: documents in their run's tags.

Their files lie in the run, where MLflow 2 put them: a client without this package sees an ordinary
run with a model in it, and `runs:/<run>/<name>` means the same to both. Two programs that change
one model at the same moment: the later one wins.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mlflow.entities import Metric, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList

from dbx_aml.tracking.azureml.experiment_store import is_missing
from dbx_aml.tracking.azureml.run_inputs_store import LinkStore
from dbx_aml.tracking.azureml.tag_documents import (
    CARRIER,
    MODELS,
    document_in,
    document_tags,
    model_keys,
)

try:
    from mlflow.entities import LoggedModelStatus
    from mlflow.utils.search_utils import SearchLoggedModelsUtils

    from dbx_aml.tracking.azureml import logged_model_document as documents
except ImportError:  # MLflow 2 has no logged models
    documents = None  # type: ignore[assignment]

_READ_BACK = 20_000
_MODELS_A_PAGE = 100


class LoggedModelStore(LinkStore):
    """Logged models of the store for Azure ML.

    Args:
        service_context: Of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        # Values of metrics of models that their documents do not have yet, by model.
        self._pending: dict[str, list[documents.Link]] = {}
        self._linked: dict[str, set[tuple[str, str, str, str]]] = {}
        self._read_back: dict[tuple[Any, ...], None] = {}

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Any = None,
        params: Any = None,
        model_type: str | None = None,
    ) -> Any:
        """Create a logged model, in its run or in one made to carry it."""
        name = name or documents.random_name()
        now = documents.now()
        run_id = source_run_id or self._carrier(experiment_id, name, now)
        run = self._plain_run(run_id)
        document = {
            "name": name,
            "folder": self._free_folder(run, name),
            "status": LoggedModelStatus.PENDING.value,
            "created": now,
            "updated": now,
            "tags": {tag.key: tag.value for tag in tags or []},
            "params": {param.key: param.value for param in params or []},
        }
        if model_type:
            document["type"] = model_type
        if not source_run_id:
            document["carried"] = True
        model_id = documents.new_model_id(run_id)
        self._write_document(model_id, document, RunTag(MODELS, "true"))
        return documents.logged_model(document, model_id, run)

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> Any:
        """Return a logged model by its identifier."""
        run, document = self._document(model_id)
        if document.get("deleted") and not allow_deleted:
            raise _not_found(model_id)
        return documents.logged_model(document, model_id, run)

    def finalize_logged_model(self, model_id: str, status: Any) -> Any:
        """Set the status of a logged model, which ends the run that only carries it."""
        model = self._change(model_id, lambda one: one.update(status=LoggedModelStatus(status)))
        if model.source_run_id is None and status != LoggedModelStatus.PENDING:
            ended = RunStatus.FINISHED
            if status != LoggedModelStatus.READY:
                ended = RunStatus.FAILED
            run_id, _ = documents.parts_of(model_id)
            self.update_run_info(run_id, ended, documents.now(), None)
        return model

    def delete_logged_model(self, model_id: str) -> None:
        """Mark a logged model as deleted; its files stay as long as its run."""
        self._change(model_id, lambda one: one.update(deleted=documents.now()))

    def set_logged_model_tags(self, model_id: str, tags: Any) -> None:
        """Set tags of a logged model."""
        new = {tag.key: tag.value for tag in tags}
        self._change(model_id, lambda one: one.setdefault("tags", {}).update(new))

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag of a logged model."""

        def remove(document: Any) -> None:
            if document.get("tags", {}).pop(key, None) is None:
                raise MlflowException(
                    f"No tag with key {key!r} found for model {model_id!r}.",
                    RESOURCE_DOES_NOT_EXIST,
                )

        self._change(model_id, remove)

    def log_logged_model_params(self, model_id: str, params: Any) -> None:
        """Add parameters to a logged model."""
        new = {param.key: param.value for param in params}
        self._change(model_id, lambda one: one.setdefault("params", {}).update(new))

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
        asked = documents.run_asked_for(filter_string)
        if asked:
            models = self._models_of_run(asked)
        else:
            models = self._models_of_experiments([str(one) for one in experiment_ids])
        found = SearchLoggedModelsUtils.filter_logged_models(models, filter_string, datasets)
        ordered = SearchLoggedModelsUtils.sort(found, order_by)
        page, token = SearchLoggedModelsUtils.paginate(
            ordered, page_token, max_results or _MODELS_A_PAGE
        )
        return PagedList(page, token)

    def folder_of_model(self, run_id: str, name: str) -> str | None:
        """Return the folder of the newest model of that name in a run; None if there is none."""
        found = self._documents_of(self._plain_run(run_id))
        same = [one for one in found.values() if one["name"] == name]
        return str(max(same, key=lambda one: one["created"])["folder"]) if same else None

    def model_in_folder(self, run_id: str, folder: str) -> str | None:
        """Return the identifier of the model in a folder of a run; None if there is none."""
        found = self._documents_of(self._plain_run(run_id))
        return next((one for one, model in found.items() if model["folder"] == folder), None)

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
        of_models = [metric for metric in metrics if getattr(metric, "model_id", None)]
        if of_models:
            # MLflow reads a run's metrics and sends them again for the model: they are there.
            metrics = [
                metric
                for metric in metrics
                if not metric.model_id or _identity(run_id, metric) not in self._read_back
            ]
        if metrics or params or tags:
            super().log_batch(run_id, metrics, params, tags)
        if of_models:
            self.link_metrics(run_id, of_models)

    def get_metric_history(self, run_id: str, metric_key: str, *args: Any, **kwargs: Any) -> Any:
        """Return all values of a metric."""
        history = super().get_metric_history(run_id, metric_key, *args, **kwargs)
        for metric in history[-_READ_BACK:]:
            self._read_back[_identity(run_id, metric)] = None
        while len(self._read_back) > _READ_BACK:
            self._read_back.pop(next(iter(self._read_back)))
        return history

    def update_run_info(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """Change a run; what its models have not got yet is written first."""
        with self._changing:
            for model_id, links in list(self._pending.items()):
                if run_id in (documents.parts_of(model_id)[0], *(one[6] for one in links)):
                    self._change(model_id, lambda _: None)
        return super().update_run_info(run_id, *args, **kwargs)

    def link_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Link values that the run has already to their models."""
        with self._changing:
            new = set()
            # A model of another server has its own place for them.
            for metric in (one for one in metrics if documents.is_ours(one.model_id)):
                one = documents.link(metric, run_id)
                series = documents.same_series(one)
                known = self._linked.setdefault(metric.model_id, set())
                links = [*self._pending.get(metric.model_id, []), one]
                self._pending[metric.model_id] = documents.merged(links)
                if series not in known:
                    known.add(series)
                    new.add(metric.model_id)
            for model_id in new:
                self._change(model_id, lambda _: None)

    def _change(self, model_id: str, change: Callable[[Any], None]) -> Any:
        """Change a document, and return the model."""
        with self._changing:
            run, document = self._document(model_id)
            change(document)
            document["status"] = LoggedModelStatus(document["status"]).value
            document["updated"] = documents.now()
            self._write_document(model_id, document)
            self._pending.pop(model_id, None)
            return documents.logged_model(document, model_id, run)

    def _document(self, model_id: str) -> tuple[Run, Any]:
        """Return a model's run and document, with what this process knows of its metrics."""
        run_id, key = documents.parts_of(model_id)
        try:
            run = self._plain_run(run_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            raise _not_found(model_id) from error
        document = document_in(key, self._all_tags(run))
        if document is None:
            raise _not_found(model_id)
        links = [*document.get("metrics", []), *self._pending.get(model_id, [])]
        if links:
            document["metrics"] = documents.merged(links)
        return run, document

    def _write_document(self, model_id: str, document: Any, *more: RunTag) -> None:
        run_id, key = documents.parts_of(model_id)
        tags = [RunTag(*pair) for pair in document_tags(key, document).items()]
        self.log_batch(run_id, [], [], [*tags, *more])

    def _documents_of(self, run: Run) -> dict[str, Any]:
        """Return the documents of a run's models by their identifiers, without deleted ones."""
        tags, run_id = self._all_tags(run), run.info.run_id
        found = {
            documents.model_id_of(run_id, key): document_in(key, tags) for key in model_keys(tags)
        }
        return {one: model for one, model in found.items() if model and not model.get("deleted")}

    def _models_of_experiments(self, experiment_ids: list[str]) -> list[Any]:
        found: list[Any] = []
        token = None
        condition = f"tags.`{MODELS}` = 'true'"
        while True:
            runs, token = self._plain_runs(experiment_ids, condition, 1000, token)
            for run in runs:
                found += self._models_in(run)
            if not token:
                return found

    def _models_of_run(self, run_id: str) -> list[Any]:
        try:
            return self._models_in(self._plain_run(run_id))
        except MlflowException as error:
            if is_missing(error):
                return []
            raise

    def _models_in(self, run: Run) -> list[Any]:
        found = self._documents_of(run).items()
        return [documents.logged_model(document, one, run) for one, document in found]

    def _carrier(self, experiment_id: str, name: str, now: int) -> str:
        reason = RunTag(CARRIER, "this run only carries a logged model that was made without a run")
        return str(self.create_run(experiment_id, "", now, [reason], name).info.run_id)

    def _free_folder(self, run: Run, name: str) -> str:
        """Return a folder for a model's files: its name, unless something is there already."""
        tags = self._all_tags(run)
        taken = {(document_in(key, tags) or {}).get("folder") for key in model_keys(tags)}
        if name not in taken and not self._container_of_run(run.info.run_id).paths(name):
            return name
        return f"{name}-{documents.new_model_id('')[-8:]}"


def _identity(run_id: str, metric: Metric) -> tuple[Any, ...]:
    return run_id, metric.key, metric.value, metric.timestamp, metric.step


def _not_found(model_id: str) -> MlflowException:
    return MlflowException(f"Logged model {model_id!r} not found.", RESOURCE_DOES_NOT_EXIST)
