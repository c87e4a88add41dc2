"""The lowest layer of the store: bounded requests, and experiments by path.

Databricks names an experiment by its path, Azure ML takes only letters, digits, `_` and `-`. A
name that Azure ML would refuse is mapped to the same accepted name each time, and a tag holds the
original name. So `mlflow.set_experiment("/Users/ana@contoso.com/team/iris")` works, and the mapped
name works too.
"""

import re
from typing import Any

from azureml.mlflow._store.tracking.store import AzureMLRestStore
from mlflow.entities import Experiment, ExperimentTag
from mlflow.exceptions import RestException
from mlflow.protos.service_pb2 import MlflowService
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.rest_utils import _REST_API_PATH_PREFIX, extract_api_info_for_service

from dbx_aml.link.experiments import accepted_experiment_name
from dbx_aml.tracking.azureml.mlflow_calls import (
    AnswerLostError,
    call_mlflow_api,
    with_retries,
)

PATH_TAG = "dbx_aml.experiment_path"
# Endpoint and method of each call; MLflow's own table has another place in each version.
_ENDPOINTS = extract_api_info_for_service(MlflowService, _REST_API_PATH_PREFIX)
_CREATING_CALLS = ("CreateRun", "CreateExperiment")
_NAME_CONDITION = re.compile(r"""(\bname\s*=\s*)(['"])(.*?)\2""", re.IGNORECASE)


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
        tags = list(tags or [])
        if accepted_name != name:
            tags.append(ExperimentTag(PATH_TAG, name))
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

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return an experiment by its original or its mapped name; None if it does not exist."""
        experiment = super().get_experiment_by_name(accepted_experiment_name(experiment_name))
        return _with_original_name(experiment) if experiment else None

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an experiment, to a name that Azure ML accepts."""
        accepted_name = accepted_experiment_name(new_name)
        super().rename_experiment(experiment_id, accepted_name)
        if accepted_name != new_name:
            self.set_experiment_tag(experiment_id, ExperimentTag(PATH_TAG, new_name))

    def search_experiments(self, *args: Any, **kwargs: Any) -> Any:
        """Return experiments under their original names; a filter may use either name."""
        if kwargs.get("filter_string"):
            kwargs["filter_string"] = _NAME_CONDITION.sub(
                lambda match: f"{match[1]}{match[2]}{accepted_experiment_name(match[3])}{match[2]}",
                kwargs["filter_string"],
            )
        page = super().search_experiments(*args, **kwargs)
        return PagedList([_with_original_name(experiment) for experiment in page], page.token)


def _with_original_name(experiment: Experiment) -> Experiment:
    original_name = experiment.tags.get(PATH_TAG)
    # If another client renamed the experiment, its tag is out of date.
    if original_name and accepted_experiment_name(original_name) == experiment.name:
        experiment._set_name(original_name)
    return experiment
