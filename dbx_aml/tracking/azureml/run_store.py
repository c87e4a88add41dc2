"""Runs in Azure ML: within its limits, nothing lost, nothing twice.

What is more than a run takes goes into the overflow and comes back with the run, so code that uses
MLflow sees no difference; a client without this package sees a run with fewer parameters.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any
from uuid import uuid4

from mlflow.entities import Metric, Param, Run, RunData, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from dbx_aml.tracking.azureml.artifact_container import ArtifactContainer
from dbx_aml.tracking.azureml.artifact_repository import container_of
from dbx_aml.tracking.azureml.experiment_store import ExperimentStore
from dbx_aml.tracking.azureml.mlflow_calls import AnswerLostError, Attempts
from dbx_aml.tracking.azureml.run_overflow import Overflow, Spill
from dbx_aml.tracking.azureml.tag_documents import CREATE_ID, LONGEST_TAG, OVERFLOW, is_hidden

log = logging.getLogger(__name__)
_METRICS_A_CALL = 250
_PARAMS_A_CALL = 100
_PARAMS_A_RUN = 200
_TAGS_A_CALL = 50
_TAGS_A_RUN = 50
_LONGEST_PARAM = 500


class RunStore(ExperimentStore):
    """Runs of the store for Azure ML.

    Args:
        service_context: Of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        self._overflow = Overflow(self._container_of_run)
        self._overflowing: dict[str, int] = {}
        self._artifact_uris: dict[str, str] = {}

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str | None
    ) -> Run:
        """Create a run, once: a lost answer is looked for before it is tried again."""
        spill = Spill()
        create_id = uuid4().hex
        fitted = [RunTag(tag.key, spill.fitted(str(tag.value), LONGEST_TAG)) for tag in tags]
        # The count of overflows is there from the start, so that a full run has room for it.
        own = [RunTag(CREATE_ID, create_id), RunTag(OVERFLOW, "0")]
        room = _TAGS_A_CALL - len(own)
        first = [*own, *fitted[:room]]
        attempts = Attempts("POST runs/create")
        while True:
            try:
                made = super().create_run(experiment_id, user_id, start_time, first, run_name)
                break
            except AnswerLostError as error:
                condition = f"tags.`{CREATE_ID}` = '{create_id}'"
                found, _ = self._plain_runs([experiment_id], condition, 1, None)
                if found:
                    made = found[0]
                    break
                attempts.wait(str(error))
        run_id = made.info.run_id
        self._artifact_uris[run_id] = made.info.artifact_uri
        rest = fitted[room:]
        if rest or spill:
            self._write(run_id, [], [], rest, spill)
            return self.get_run(run_id)
        return self._complete(made)

    def get_run(self, run_id: str) -> Run:
        """Return a run with everything that was logged to it."""
        return self._complete(self._plain_run(run_id))

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric."""
        super().log_metric(run_id, _plain_metric(metric))

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter."""
        self.log_batch(run_id, [], [param], [])

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set one tag."""
        self.log_batch(run_id, [], [], [tag])

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag, wherever it is."""
        tags = self._plain_run(run_id).data.tags
        count = _count(tags)
        if key in tags or not count:
            super().delete_tag(run_id, key)
        if count and key in self._overflow.read(run_id, count).tags:
            self._write(run_id, [], [], [], Spill(tags={key: None}))

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        """Log metrics, parameters and tags, in as many calls as Azure ML's limits need."""
        spill = Spill()
        fitted_params = [
            Param(param.key, spill.fitted(str(param.value), _LONGEST_PARAM)) for param in params
        ]
        fitted_tags = [RunTag(tag.key, spill.fitted(str(tag.value), LONGEST_TAG)) for tag in tags]
        plain = [_plain_metric(metric) for metric in metrics]
        self._write(run_id, plain, fitted_params, fitted_tags, spill)

    def _write(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
        spill: Spill,
    ) -> None:
        if spill:
            self._spill(run_id, spill)
        parts = zip_longest(
            _chunks(metrics, _METRICS_A_CALL),
            _chunks(params, _PARAMS_A_CALL),
            _chunks(tags, _TAGS_A_CALL),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in parts:
            try:
                super().log_batch(run_id, some_metrics, some_params, some_tags)
            except RestException as error:
                if not _is_over_limit(error) or not (some_params or some_tags):
                    raise
                if some_metrics:
                    super().log_batch(run_id, some_metrics, [], [])
                self._write_what_fits(run_id, some_params, some_tags)

    def _write_what_fits(
        self, run_id: str, params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Fill the run up and spill the rest."""
        data = self._plain_run(run_id).data
        spill = Spill()
        own_params, more_params = _split(params, set(data.params), _PARAMS_A_RUN)
        own_tags, more_tags = _split(tags, set(data.tags), _TAGS_A_RUN)
        if not more_params and not more_tags:
            # Another limit than these two: the service's own words say which.
            super().log_batch(run_id, [], own_params, own_tags)
            return
        known = self._overflow.read(run_id, _count(data.tags)) if _count(data.tags) else Spill()
        for param in more_params:
            before = known.params.get(param.key, param.value)
            if before != param.value:
                raise MlflowException(
                    f"Changing param values is not allowed. Param with key={param.key!r} was "
                    f"already logged with value={before!r} for run ID={run_id!r}. Attempted "
                    f"logging new value {param.value!r}.",
                    INVALID_PARAMETER_VALUE,
                )
            if param.key not in known.params:
                spill.params[param.key] = param.value
        spill.tags = {tag.key: tag.value for tag in more_tags}
        if spill:
            self._spill(run_id, spill)
        if own_params or own_tags:
            super().log_batch(run_id, [], own_params, own_tags)

    def _spill(self, run_id: str, spill: Spill) -> None:
        count = self._overflowing.get(run_id)
        if count is None:
            count = _count(self._plain_run(run_id).data.tags)
        self._overflowing[run_id] = self._overflow.append(run_id, spill, count)
        tag = RunTag(OVERFLOW, str(self._overflowing[run_id]))
        super().log_batch(run_id, [], [], [tag])

    def _search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        runs, token = super()._search_runs(
            experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
        )
        return [self._complete(run) for run in runs], token

    def _plain_run(self, run_id: str) -> Run:
        """Return a run as the service has it."""
        run: Run = super().get_run(run_id)
        self._artifact_uris[run_id] = run.info.artifact_uri
        return run

    def _plain_runs(
        self, experiment_ids: list[str], condition: str, most: int, token: str | None
    ) -> tuple[list[Run], str | None]:
        """Return a page of the runs that meet a condition, as the service has them."""
        found: tuple[list[Run], str | None] = super()._search_runs(
            experiment_ids, condition, ViewType.ACTIVE_ONLY, most, None, token
        )
        return found

    def _complete(self, run: Run) -> Run:
        """Return a run with its overflow and without this store's own tags."""
        data, run_id = run.data, run.info.run_id
        self._artifact_uris[run_id] = run.info.artifact_uri
        params, tags = dict(data.params), self._all_tags(run)
        if count := _count(data.tags):
            spill = self._overflow.read(run_id, count)
            params = {key: spill.whole(text) for key, text in {**spill.params, **params}.items()}
        shown = RunData(
            metrics=data._metric_objs,
            params=[Param(key, text) for key, text in params.items()],
            tags=[RunTag(key, text) for key, text in tags.items() if not is_hidden(key)],
        )
        return self._with_links(run, shown, tags)

    def _all_tags(self, run: Run) -> dict[str, str]:
        """Return a run's tags with its overflow, this store's own among them."""
        tags = dict(run.data.tags)
        if not (count := _count(tags)):
            return tags
        spill = self._overflow.read(run.info.run_id, count)
        more = {key: text for key, text in spill.tags.items() if text is not None}
        return {key: spill.whole(text) for key, text in {**more, **tags}.items()}

    def _with_links(self, run: Run, shown: RunData, tags: dict[str, str]) -> Run:
        return Run(run.info, shown, run.inputs)

    def _container_of_run(self, run_id: str) -> ArtifactContainer:
        if run_id not in self._artifact_uris:
            self._plain_run(run_id)
        return container_of(self._artifact_uris[run_id])


def _count(tags: dict[str, str]) -> int:
    text = tags.get(OVERFLOW, "")
    return int(text) if text.isdigit() else 0


def _plain_metric(metric: Metric) -> Metric:
    """Return a metric without what MLflow 3 added, which Azure ML does not know."""
    return Metric(metric.key, metric.value, metric.timestamp, metric.step)


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _split(items: Sequence[Any], known: set[str], most: int) -> tuple[list[Any], list[Any]]:
    """Return those that a run has, or has room for, and the others."""
    fits, rest = [], []
    known = set(known)
    for item in items:
        if item.key in known or len(known) < most:
            known.add(item.key)
            fits.append(item)
        else:
            rest.append(item)
    return fits, rest


def _is_over_limit(error: RestException) -> bool:
    return "over the size limit" in error.message or "Limit=" in error.message
