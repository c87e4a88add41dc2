"""Runs in Azure ML: within the service's limits, without loss and without duplicates.

Parameters, tags and long values beyond the limits go into the overflow and come back with the run,
so code that uses MLflow sees no difference. A client without this package sees a run with fewer
parameters. So does this store where the overflow of a run cannot be believed: it shows the run as
the service has it, and warns once.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any
from uuid import uuid4

from mlflow.entities import Metric, Param, Run, RunData, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.utils.search_utils import SearchUtils

from dbx_aml._common.chunks import split_chunks
from dbx_aml._common.http import paged
from dbx_aml._common.log import get_logger
from dbx_aml._common.text import parse_count
from dbx_aml.tracking.azureml.artifact_container import ArtifactContainer
from dbx_aml.tracking.azureml.artifact_repository import container_of_run
from dbx_aml.tracking.azureml.experiment_store import ExperimentStore
from dbx_aml.tracking.azureml.mlflow_calls import create_once
from dbx_aml.tracking.azureml.run_overflow import (
    MAX_ARTIFACTS,
    OverflowPart,
    RunOverflow,
    UnreadableRunError,
)
from dbx_aml.tracking.azureml.run_pages import RunSearch, merge_page, parse_positions
from dbx_aml.tracking.azureml.search_filter import Condition, split_filter
from dbx_aml.tracking.azureml.tag_documents import (
    CREATE_ID,
    HAS_OVERFLOW,
    MAX_TAG_LENGTH,
    OVERFLOW_COUNT,
    is_internal_tag,
)

log = get_logger(__name__)
_METRICS_PER_CALL = 250
_PARAMS_PER_CALL = 100
_PARAMS_PER_RUN = 200
_TAGS_PER_CALL = 50
_TAGS_PER_RUN = 50
_MAX_PARAM_LENGTH = 500
_RUNS_PER_PAGE = 100
_RUNS_PER_FULL_PAGE = 1000
# Azure ML takes no other name of a metric in a filter.
_PLAIN_NAME = re.compile(r"\w+")


class RunStore(ExperimentStore):
    """Runs of the store for Azure ML.

    Args:
        service_context: Service context of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        self._overflow = RunOverflow(self._container_of_run)
        self._overflow_counts: dict[str, int] = {}
        self._artifact_uris: dict[str, str] = {}
        self._unreadable_run_ids: set[str] = set()
        # Runs of a search that Azure ML cannot order or filter, for its next page.
        self._ordered_runs: dict[str, list[Run]] = {}
        # Run and name of tags that a full run did not take.
        self._overflow_tags: set[tuple[str, str]] = set()

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str | None
    ) -> Run:
        """Create a run once: after a lost answer, the run is searched before the next attempt."""
        overflow = OverflowPart()
        create_id = uuid4().hex
        short_tags = [
            RunTag(tag.key, overflow.shorten(str(tag.value), MAX_TAG_LENGTH)) for tag in tags
        ]
        # The tags about the overflow are set from the start, so that a full run has room for them.
        internal_tags = [
            RunTag(CREATE_ID, create_id),
            RunTag(OVERFLOW_COUNT, "0"),
            RunTag(HAS_OVERFLOW, "false"),
        ]
        room = _TAGS_PER_CALL - len(internal_tags)
        first_tags, later_tags = [*internal_tags, *short_tags[:room]], short_tags[room:]
        create = super().create_run

        def find_created() -> Run | None:
            condition = f"tags.`{CREATE_ID}` = '{create_id}'"
            runs, _ = self._search_stored_runs([experiment_id], condition, 1, None)
            return next(iter(runs), None)

        run: Run = create_once(
            lambda: create(experiment_id, user_id, start_time, first_tags, run_name),
            find_created,
            "POST runs/create",
        )
        run_id = run.info.run_id
        self._artifact_uris[run_id] = run.info.artifact_uri
        if later_tags or overflow:
            self._write(run_id, [], [], later_tags, overflow)
            return self.get_run(run_id)
        return self._with_overflow(run)

    def get_run(self, run_id: str) -> Run:
        """Return a run with everything that was logged to it."""
        return self._with_overflow(self._get_stored_run(run_id))

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value of a metric."""
        super().log_metric(run_id, _without_mlflow_3_fields(metric))

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter."""
        self.log_batch(run_id, [], [param], [])

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set one tag."""
        self.log_batch(run_id, [], [], [tag])

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of the run or of its overflow."""
        run = self._get_stored_run(run_id)
        is_in_overflow = self._read_overflow(run).tags.get(key) is not None
        if not is_in_overflow and key not in run.data.tags:
            raise MlflowException(
                f"No tag with name: {key} in run with id {run_id}", RESOURCE_DOES_NOT_EXIST
            )
        if key in run.data.tags:
            super().delete_tag(run_id, key)
        if is_in_overflow:
            self._write(run_id, [], [], [], OverflowPart(tags={key: None}))

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        """Log metrics, parameters and tags, in as many calls as Azure ML's limits need."""
        overflow = OverflowPart()
        short_params = [
            Param(param.key, overflow.shorten(str(param.value), _MAX_PARAM_LENGTH))
            for param in params
        ]
        short_tags = [
            RunTag(tag.key, overflow.shorten(str(tag.value), MAX_TAG_LENGTH)) for tag in tags
        ]
        stored_metrics = [_without_mlflow_3_fields(metric) for metric in metrics]
        self._write(run_id, stored_metrics, short_params, short_tags, overflow)

    def _write(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
        overflow: OverflowPart,
    ) -> None:
        if overflow:
            self._append_overflow(run_id, overflow)
        calls = zip_longest(
            split_chunks(metrics, _METRICS_PER_CALL),
            split_chunks(params, _PARAMS_PER_CALL),
            split_chunks(tags, _TAGS_PER_CALL),
            fillvalue=(),
        )
        for call_metrics, call_params, call_tags in calls:
            try:
                super().log_batch(run_id, call_metrics, call_params, call_tags)
            except RestException as error:
                if not _is_over_limit(error) or not (call_params or call_tags):
                    raise
                if call_metrics:
                    super().log_batch(run_id, call_metrics, [], [])
                self._fill_run(run_id, call_params, call_tags)

    def _needs_upload(self, run_id: str, tags: Iterable[RunTag]) -> bool:
        """Tell whether one of the tags goes to the overflow, as far as this store knows."""
        return any(
            len(tag.value) > MAX_TAG_LENGTH or (run_id, tag.key) in self._overflow_tags
            for tag in tags
        )

    def _fill_run(self, run_id: str, params: Sequence[Param], tags: Sequence[RunTag]) -> None:
        """Write as many parameters and tags as the run takes, and the others to the overflow."""
        run = self._get_stored_run(run_id)
        data = run.data
        run_params, overflow_params = _split_at_limit(params, set(data.params), _PARAMS_PER_RUN)
        run_tags, overflow_tags = _split_at_limit(tags, set(data.tags), _TAGS_PER_RUN)
        if not overflow_params and not overflow_tags:
            # Another limit of the service; its error says which.
            super().log_batch(run_id, [], run_params, run_tags)
            return
        count = _overflow_count(run)
        logged_params = self._overflow.read(run_id, count).params if count else {}
        overflow = OverflowPart(tags={tag.key: tag.value for tag in overflow_tags})
        self._overflow_tags.update((run_id, tag.key) for tag in overflow_tags)
        for param in overflow_params:
            logged_value = logged_params.get(param.key, param.value)
            if logged_value != param.value:
                raise MlflowException(
                    f"Changing param values is not allowed. Param with key={param.key!r} was "
                    f"already logged with value={logged_value!r} for run ID={run_id!r}. Attempted "
                    f"logging new value {param.value!r}.",
                    INVALID_PARAMETER_VALUE,
                )
            if param.key not in logged_params:
                overflow.params[param.key] = param.value
        if overflow:
            self._append_overflow(run_id, overflow)
        if run_params or run_tags:
            super().log_batch(run_id, [], run_params, run_tags)

    def _append_overflow(self, run_id: str, overflow: OverflowPart) -> None:
        count = self._overflow_counts.get(run_id)
        if count is None:
            count = _overflow_count(self._get_stored_run(run_id))
        self._overflow_counts[run_id] = self._overflow.append(run_id, overflow, count)
        count_tag = RunTag(OVERFLOW_COUNT, str(self._overflow_counts[run_id]))
        super().log_batch(run_id, [], [], [count_tag, RunTag(HAS_OVERFLOW, "true")])

    def _search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        service_filter, conditions = split_filter(filter_string, SearchUtils, _is_decided_here)
        search = super()._search_runs
        if any(map(_is_unsupported, conditions)) or any(map(_orders_by_value, order_by or [])):
            return self._search_all_runs(
                (experiment_ids, service_filter, run_view_type),
                conditions,
                max_results,
                order_by,
                page_token,
            )
        if not conditions:
            runs, token = search(
                experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
            )
            return [self._with_overflow(run) for run in runs], token
        has_overflow = f"tags.`{HAS_OVERFLOW}` = 'true'"
        overflow_filter = " AND ".join(filter(None, [service_filter, has_overflow]))

        def read_without_overflow(run: Run) -> Run | None:
            is_complete = run.data.tags.get(HAS_OVERFLOW) != "true"
            return self._with_overflow(run) if is_complete else None

        def read_with_overflow(run: Run) -> Run | None:
            run = self._with_overflow(run)
            return run if _meets(run, conditions) else None

        positions = parse_positions(page_token, 2)
        searches = [
            RunSearch(
                lambda token: search(
                    experiment_ids, filter_string, run_view_type, max_results, order_by, token
                ),
                read_without_overflow,
                positions[0],
            ),
            RunSearch(
                lambda token: search(
                    experiment_ids, overflow_filter, run_view_type, _RUNS_PER_PAGE, order_by, token
                ),
                read_with_overflow,
                positions[1],
            ),
        ]
        return merge_page(searches, max_results, order_by)

    def _search_all_runs(
        self,
        search_arguments: tuple[list[str], str | None, int],
        conditions: Sequence[Condition],
        max_results: int,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        """Return a page of a search with an order or a condition that Azure ML does not have.

        Args:
            search_arguments: Experiments, the conditions for Azure ML, and the view type.
            conditions: Further conditions.
            max_results: Most runs of the page.
            order_by: Order of the runs.
            page_token: Token of an earlier page; its runs are kept for the next page.
        """
        key = repr((search_arguments, conditions, order_by))
        runs = self._ordered_runs.get(key) if page_token else None
        if runs is None:
            search = super()._search_runs
            stored_runs = paged(
                lambda token: search(*search_arguments, _RUNS_PER_FULL_PAGE, None, token),
                "runs/search",
            )
            complete_runs = [self._with_overflow(run) for run in stored_runs]
            matching = [run for run in complete_runs if _meets(run, conditions)]
            runs = SearchUtils.sort(matching, order_by)
        page, token = SearchUtils.paginate(runs, page_token, max_results)
        self._ordered_runs = {key: runs} if token else {}
        return page, token

    def _get_stored_run(self, run_id: str) -> Run:
        """Return a run as the service stores it."""
        run: Run = super().get_run(run_id)
        self._artifact_uris[run_id] = run.info.artifact_uri
        return run

    def _search_stored_runs(
        self, experiment_ids: list[str], condition: str, max_results: int, token: str | None
    ) -> tuple[list[Run], str | None]:
        """Return a page of the runs that meet a condition, as the service stores them."""
        page: tuple[list[Run], str | None] = super()._search_runs(
            experiment_ids, condition, ViewType.ACTIVE_ONLY, max_results, None, token
        )
        return page

    def _with_overflow(self, run: Run) -> Run:
        """Return a run with its overflow and without the store's own tags."""
        data, overflow = run.data, self._read_overflow(run)
        params = {**overflow.params, **data.params}
        tags = _all_tags(run, overflow)
        visible_data = RunData(
            metrics=data._metric_objs,
            params=[Param(key, overflow.full_value(text)) for key, text in params.items()],
            tags=[RunTag(key, text) for key, text in tags.items() if not is_internal_tag(key)],
        )
        return self._with_inputs(run, visible_data, tags)

    def _all_tags(self, run: Run) -> dict[str, str]:
        """Return the tags of a run and of its overflow, the store's own tags included."""
        return _all_tags(run, self._read_overflow(run))

    def _read_overflow(self, run: Run) -> OverflowPart:
        """Return the overflow of a run; an empty one, with a warning, if it cannot be believed."""
        run_id = run.info.run_id
        self._artifact_uris[run_id] = run.info.artifact_uri
        try:
            count = _overflow_count(run)
            return self._overflow.read(run_id, count) if count else OverflowPart()
        except MlflowException as error:
            # An outage or a missing permission is no fault of the run.
            if error.error_code != ErrorCode.Name(INVALID_PARAMETER_VALUE):
                raise
            self._warn_of_run(run_id, error)
            return OverflowPart()

    def _warn_of_run(self, run_id: str, error: MlflowException) -> None:
        """Log, once for a run, that the run is shown as the service has it."""
        if run_id not in self._unreadable_run_ids:
            self._unreadable_run_ids.add(run_id)
            log.warning("run %s is shown as Azure ML has it: %s", run_id, error.message)

    def _with_inputs(self, run: Run, data: RunData, tags: dict[str, str]) -> Run:
        """Return a run with other data; the next layer adds inputs and outputs from the tags."""
        return Run(run.info, data, run.inputs)

    def _container_of_run(self, run_id: str) -> ArtifactContainer:
        if run_id not in self._artifact_uris:
            self._get_stored_run(run_id)
        return container_of_run(self.service_context, run_id, self._artifact_uris[run_id])


def _is_decided_here(condition: Condition) -> bool:
    """Tell whether Azure ML cannot decide a condition, or not for a run with an overflow."""
    # This package writes its own tags first, so that the service has them.
    is_tag = condition.kind == "tag" and not condition.key.startswith("dbx_aml.")
    return is_tag or condition.kind == "parameter" or _is_unsupported(condition)


def _is_unsupported(condition: Condition) -> bool:
    """Tell whether Azure ML has no such condition.

    Source:
        Microsoft Learn, "Query and compare experiments and runs with MLflow", support matrix; seen
        2026-11.
    """
    if condition.kind == "metric":
        return _PLAIN_NAME.fullmatch(condition.key) is None
    return condition.kind == "tag" and condition.comparator == "!="


def _orders_by_value(clause: str) -> bool:
    """Tell whether a clause orders runs by a metric, a parameter or a tag, as Azure ML cannot."""
    kind, _, _ = SearchUtils.parse_order_by_for_search_runs(clause)
    return bool(kind != "attribute")


def _meets(run: Run, conditions: Iterable[Condition]) -> bool:
    """Tell whether a run meets all conditions."""
    texts = {"parameter": run.data.params, "tag": run.data.tags}
    return all(
        bool(SearchUtils.filter([run], condition.text))
        if condition.kind == "metric"
        else condition.is_met_by(texts[condition.kind].get(condition.key))
        for condition in conditions
    )


def _all_tags(run: Run, overflow: OverflowPart) -> dict[str, str]:
    tags = {key: text for key, text in overflow.tags.items() if text is not None}
    tags |= run.data.tags
    return {key: overflow.full_value(text) for key, text in tags.items()}


def _overflow_count(run: Run) -> int:
    """Return the number of overflow artifacts by the run's tag.

    Raises:
        UnreadableRunError: The tag has no such number.
    """
    try:
        return parse_count(run.data.tags.get(OVERFLOW_COUNT, "0"), MAX_ARTIFACTS)
    except ValueError as error:
        location = f"tag {OVERFLOW_COUNT!r}"
        raise UnreadableRunError(run.info.run_id, location, str(error)) from error


def _without_mlflow_3_fields(metric: Metric) -> Metric:
    """Return a metric with only the fields of MLflow 2, which Azure ML knows."""
    return Metric(metric.key, metric.value, metric.timestamp, metric.step)


def _split_at_limit(
    items: Sequence[Any], stored_keys: set[str], limit: int
) -> tuple[list[Any], list[Any]]:
    """Return the items that the run has or has room for, and the other items."""
    accepted, rejected = [], []
    keys = set(stored_keys)
    for item in items:
        if item.key in keys or len(keys) < limit:
            keys.add(item.key)
            accepted.append(item)
        else:
            rejected.append(item)
    return accepted, rejected


def _is_over_limit(error: RestException) -> bool:
    return "over the size limit" in error.message or "Limit=" in error.message
