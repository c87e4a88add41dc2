"""The store's calls and experiments: bounded requests, and experiments by path.

Databricks names an experiment by its path, Azure ML takes only letters, digits, `_` and `-`. A
name that it would refuse is mapped, the same way each time, and the given one stays in a tag, so
`mlflow.set_experiment("/Users/ana@contoso.com/team/iris")` works, and so does the mapped name.
"""

import re
from typing import Any

from azureml.mlflow._store.tracking.store import AzureMLRestStore
from mlflow.entities import Experiment, ExperimentTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.service_pb2 import MlflowService
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.rest_utils import _REST_API_PATH_PREFIX, extract_api_info_for_service

from dbx_aml.link.experiments import experiment_name
from dbx_aml.tracking.azureml.mlflow_calls import AnswerLostError, Attempts, call

PATH_TAG = "dbx_aml.experiment_path"
# MLflow keeps its own, in another place in each version.
_CALLS = extract_api_info_for_service(MlflowService, _REST_API_PATH_PREFIX)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_QUOTED_NAME = re.compile(r"""(\bname\s*=\s*)(['"])(.*?)\2""", re.IGNORECASE)


def accepted_name(name: str) -> str:
    """Return the name under which Azure ML has an experiment.

    Args:
        name: Any name, for example "iris" (stays) or "/Users/ana@contoso.com/team/iris".
    """
    if _NAME.fullmatch(name):
        return name
    return experiment_name(name if name.startswith("/") else f"/{name}")


class ExperimentStore(AzureMLRestStore):  # type: ignore[misc]
    """Requests and experiments of the store for Azure ML.

    Args:
        service_context: Of the workspace.
    """

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, endpoint: str | None = None, **options: Any
    ) -> Any:
        """Make a call with our bound on retries instead of MLflow's."""
        if api in getattr(self, "_V3_APIS", ()):
            return super()._call_endpoint(api, json_body, endpoint, **options)
        known, method = _CALLS[api]
        response = options.get("response_proto") or api.Response()
        once = api.__name__ in ("CreateRun", "CreateExperiment")
        path = endpoint or known
        return call(self.get_host_creds, path, method, json_body, response, once=once)

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> str:
        """Create an experiment, under a name that Azure ML takes."""
        accepted = accepted_name(name)
        tags = list(tags or [])
        if accepted != name:
            tags.append(ExperimentTag(PATH_TAG, name))
        attempts = Attempts("POST experiments/create")
        lost = False
        while True:
            try:
                return str(super().create_experiment(accepted, artifact_location, tags))
            except AnswerLostError as error:
                lost = True
                attempts.wait(str(error))
            except RestException as error:
                if lost and error.error_code == "RESOURCE_ALREADY_EXISTS":
                    # By the try whose answer was lost.
                    return str(super().get_experiment_by_name(accepted).experiment_id)
                # MLflow's words for a name that exists are about the name that was given.
                error.message = error.message.replace(accepted, name)
                raise

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment under the name that was given to it."""
        return _as_given(super().get_experiment(experiment_id))

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return an experiment by the name that was given to it or by Azure ML's; None if none."""
        found = super().get_experiment_by_name(accepted_name(experiment_name))
        return _as_given(found) if found else None

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an experiment, to a name that Azure ML takes."""
        accepted = accepted_name(new_name)
        super().rename_experiment(experiment_id, accepted)
        if accepted != new_name:
            self.set_experiment_tag(experiment_id, ExperimentTag(PATH_TAG, new_name))

    def search_experiments(self, *args: Any, **kwargs: Any) -> Any:
        """Return experiments under the names that were given to them; a filter may use either."""
        if kwargs.get("filter_string"):
            kwargs["filter_string"] = _QUOTED_NAME.sub(
                lambda found: f"{found[1]}{found[2]}{accepted_name(found[3])}{found[2]}",
                kwargs["filter_string"],
            )
        found = super().search_experiments(*args, **kwargs)
        return PagedList([_as_given(experiment) for experiment in found], found.token)


def _as_given(experiment: Experiment) -> Experiment:
    given = experiment.tags.get(PATH_TAG)
    # One renamed elsewhere keeps its tag; the name that Azure ML has is the right one then.
    if given and accepted_name(given) == experiment.name:
        experiment._set_name(given)
    return experiment


def is_missing(error: MlflowException) -> bool:
    """Tell whether an error says that something does not exist."""
    return str(error.error_code) == "RESOURCE_DOES_NOT_EXIST"
