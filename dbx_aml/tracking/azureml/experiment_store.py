"""The lowest layer of the store: bounded requests, and experiments by path.

Databricks names an experiment by its path, Azure ML takes only letters, digits, `_` and `-`. A
name that Azure ML would refuse is mapped to the same accepted name each time, and a tag holds the
original name. So `mlflow.set_experiment("/Users/ana@contoso.com/team/iris")` works, and the mapped
name works too. Azure ML cannot rename an experiment: its new name is in the tag alone, and a second
tag holds the stored name.

Source:
    Microsoft Learn, "Query and compare experiments and runs with MLflow", support matrix; seen
    2026-11.
"""

from typing import Any

from azureml.mlflow._store.tracking.store import AzureMLRestStore
from mlflow.entities import Experiment, ExperimentTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_ALREADY_EXISTS
from mlflow.protos.service_pb2 import MlflowService
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.rest_utils import _REST_API_PATH_PREFIX, extract_api_info_for_service
from mlflow.utils.search_utils import SearchExperimentsUtils

from dbx_aml._common.http import paged
from dbx_aml.link.experiments import accepted_experiment_name
from dbx_aml.tracking.azureml.mlflow_calls import (
    AnswerLostError,
    call_mlflow_api,
    with_retries,
)
from dbx_aml.tracking.azureml.search_filter import split_filter

PATH_TAG = "dbx_aml.experiment_path"
# Of an experiment whose stored name does not follow from its name.
STORED_NAME_TAG = "dbx_aml.experiment_stored_name"
# Experiments under one name, one after the other, each renamed before the next.
_MAX_STORED_NAMES = 100
_LONGEST_PREFIX = 250
# Endpoint and method of each call; MLflow's own table has another place in each version.
_ENDPOINTS = extract_api_info_for_service(MlflowService, _REST_API_PATH_PREFIX)
_CREATING_CALLS = ("CreateRun", "CreateExperiment")


class ExperimentStore(AzureMLRestStore):  # type: ignore[misc]
    """Requests and experiments of the store for Azure ML.

    Args:
        service_context: Service context of the workspace.
    """

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, endpoint: str | None = None, **options: Any
    ) -> Any:
        """Make a call within the retry limit of this package instead of MLflow's."""
        if api in getattr(self, "_V3_APIS", ()):
            return super()._call_endpoint(api, json_body, endpoint, **options)
        api_endpoint, method = _ENDPOINTS[api]
        return call_mlflow_api(
            self.get_host_creds,
            endpoint or api_endpoint,
            method,
            json_body,
            options.get("response_proto") or api.Response(),
            is_idempotent=api.__name__ not in _CREATING_CALLS,
        )

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> str:
        """Create an experiment, under a name that Azure ML accepts."""
        accepted_name = accepted_experiment_name(name)
        for number in range(1, _MAX_STORED_NAMES):
            stored_name = accepted_name
            if number > 1:
                stored_name = f"{accepted_name[:_LONGEST_PREFIX]}-{number}"
            try:
                return self._create_experiment(name, stored_name, artifact_location, tags)
            except RestException as error:
                is_taken = error.error_code == "RESOURCE_ALREADY_EXISTS"
                if not is_taken or not self._is_renamed(stored_name, name):
                    raise
        raise MlflowException(
            f"experiment {name!r} must have been renamed less than {_MAX_STORED_NAMES} times; "
            "choose another name",
            RESOURCE_ALREADY_EXISTS,
        )

    def _is_renamed(self, stored_name: str, name: str) -> bool:
        """Tell whether the experiment with a stored name has another name than this by now."""
        experiment = super().get_experiment_by_name(stored_name)
        return experiment is not None and not _has_name(_with_original_name(experiment), name)

    def _create_experiment(
        self, name: str, accepted_name: str, artifact_location: str | None, tags: Any
    ) -> str:
        tags = list(tags or [])
        if accepted_name != name:
            tags.append(ExperimentTag(PATH_TAG, name))
        if accepted_name != accepted_experiment_name(name):
            tags.append(ExperimentTag(STORED_NAME_TAG, accepted_name))
        is_answer_lost = False

        def attempt(_seconds_left: float) -> str:
            nonlocal is_answer_lost
            create = super(ExperimentStore, self).create_experiment
            find = super(ExperimentStore, self).get_experiment_by_name
            try:
                return str(create(accepted_name, artifact_location, tags))
            except AnswerLostError:
                is_answer_lost = True
                raise
            except RestException as error:
                if is_answer_lost and error.error_code == "RESOURCE_ALREADY_EXISTS":
                    # The attempt whose answer was lost has created it.
                    return str(find(accepted_name).experiment_id)
                # The user knows the original name, not the mapped name.
                message = error.message.replace(accepted_name, name)
                error.message, error.args = message, (message,)
                raise

        return with_retries(attempt, AnswerLostError, "POST experiments/create")

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment under its original name."""
        return _with_original_name(super().get_experiment(experiment_id))

    def get_stored_experiment_name(self, experiment_id: str) -> str:
        """Return the name under which Azure ML itself keeps an experiment, as a job names it."""
        return str(super().get_experiment(experiment_id).name)

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return an experiment by its original or its mapped name; None if it does not exist."""
        stored = super().get_experiment_by_name(accepted_experiment_name(experiment_name))
        experiment = _with_original_name(stored) if stored else None
        if experiment is not None and _has_name(experiment, experiment_name):
            return experiment
        quote = '"' if "'" in experiment_name else "'"
        condition = f"tags.`{PATH_TAG}` = {quote}{experiment_name}{quote}"
        if quote in experiment_name:
            # No filter can have this name.
            condition = ""
        renamed = paged(
            lambda token: self._search_stored_experiments(
                ViewType.ALL, SEARCH_MAX_RESULTS_DEFAULT, condition, None, token
            ),
            "experiments/search",
        )
        return next((item for item in renamed if _has_name(item, experiment_name)), None)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an experiment, for every program that has this package."""
        other = self.get_experiment_by_name(new_name)
        if other is not None and other.experiment_id != experiment_id:
            raise MlflowException(f"Experiment {new_name!r} already exists.", BAD_REQUEST)
        stored_name = self.get_stored_experiment_name(experiment_id)
        self.set_experiment_tag(experiment_id, ExperimentTag(STORED_NAME_TAG, stored_name))
        self.set_experiment_tag(experiment_id, ExperimentTag(PATH_TAG, new_name))

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> Any:
        """Return experiments, filtered and ordered by their original names.

        Azure ML compares and orders the mapped names. So where a search needs the names, all
        experiments that meet its other conditions are read.
        """
        service_filter, name_conditions = split_filter(
            filter_string,
            SearchExperimentsUtils,
            lambda condition: (condition.kind, condition.key) == ("attribute", "name"),
        )
        if not name_conditions and not any(map(_orders_by_name, order_by or [])):
            page = self._search_stored_experiments(
                view_type, max_results, filter_string, order_by, page_token
            )
            return PagedList(*page)
        experiments = paged(
            lambda token: self._search_stored_experiments(
                view_type, SEARCH_MAX_RESULTS_DEFAULT, service_filter, None, token
            ),
            "experiments/search",
        )
        matching = [
            experiment
            for experiment in experiments
            if all(condition.is_met_by(experiment.name) for condition in name_conditions)
        ]
        ordered = SearchExperimentsUtils.sort(
            matching, [*(order_by or []), "creation_time DESC", "experiment_id ASC"]
        )
        return PagedList(*SearchExperimentsUtils.paginate(ordered, page_token, max_results))

    def _search_stored_experiments(self, *args: Any) -> tuple[list[Experiment], str | None]:
        """Return a page of experiments as the service filters and orders them, and its token."""
        page = super().search_experiments(*args)
        return [_with_original_name(experiment) for experiment in page], page.token


def _orders_by_name(clause: str) -> bool:
    _, key, _ = SearchExperimentsUtils.parse_order_by_for_search_experiments(clause)
    return str(key) == "name"


def _has_name(experiment: Experiment, name: str) -> bool:
    """Tell whether an experiment has a name, or the name to which Azure ML's is mapped."""
    return name in (experiment.name, accepted_experiment_name(experiment.name))


def _with_original_name(experiment: Experiment) -> Experiment:
    original_name = experiment.tags.pop(PATH_TAG, None)
    stored_name = experiment.tags.pop(STORED_NAME_TAG, None)
    # If another client renamed the experiment, its tags are out of date.
    if original_name and experiment.name in (
        stored_name,
        accepted_experiment_name(original_name),
    ):
        experiment._set_name(original_name)
    return experiment
