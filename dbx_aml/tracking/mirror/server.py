"""One of the two services: an MLflow tracking server, by its URI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from mlflow.entities import Experiment, Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.rest_store import RestStore
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.rest_utils import http_request, verify_rest_response
from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

from dbx_aml.link.uris import is_azureml_uri, is_databricks_uri
from dbx_aml.link.workspace import AmlWorkspace
from dbx_aml.tracking.runs import run_url

_EXPERIMENTS_A_SEARCH = 100
_RUNS_A_PAGE = 1000


class Side:
    """A tracking server.

    Args:
        tracking_uri: For example "databricks", "azureml://..." or "sqlite:///mlflow.db".
        name: What this side is called in tags, "databricks" or "aml", whatever stands for it.
    """

    def __init__(self, tracking_uri: str, name: str) -> None:
        self.tracking_uri = tracking_uri
        self.name = name
        self.is_azureml = is_azureml_uri(tracking_uri)
        self.is_databricks = is_databricks_uri(tracking_uri)
        # Points of metrics in one call, and how many are asked for at once.
        self.batch = 250 if self.is_azureml else 1000
        self.page = 1000 if self.is_azureml else 25_000
        # Whether a page's token is a place in the list; None until somebody has looked.
        self.pages_by_place: bool | None = None

    def __repr__(self) -> str:
        return f"Side({self.name!r})"

    @cached_property
    def store(self) -> Any:
        """MLflow's store for the URI."""
        if self.is_azureml:
            # MLflow would hold a lock meanwhile, and training wait for what this imports.
            from dbx_aml.tracking.azureml.store import AmlTrackingStore

            return AmlTrackingStore.of(self.tracking_uri)
        return _get_store(store_uri=self.tracking_uri)

    @property
    def is_remote(self) -> bool:
        """Whether the store speaks MLflow's REST API, so that `ask` works."""
        return isinstance(self.store, RestStore)

    def ask(self, method: str, call: str, **content: Any) -> dict[str, Any]:
        """Return the answer to a call of MLflow's REST API as JSON.

        MLflow's own client makes each point of a metric three objects on its way: that is most of
        what a mirror would cost.

        Args:
            method: "GET" or "POST".
            call: For example "metrics/get-history".
            content: `params` or `json`.
        """
        endpoint = f"/api/2.0/mlflow/{call}"
        creds = self.store.get_host_creds
        if self.is_azureml:
            from dbx_aml.tracking.azureml.mlflow_calls import send

            answer = send(creds, method, endpoint, **content)
        else:
            answer = http_request(creds(), endpoint, method, **content)
        found: dict[str, Any] = verify_rest_response(answer, endpoint).json()
        return found

    def run(self, run_id: str) -> Run:
        """Return a run; deleted ones too."""
        found: Run = self.store.get_run(run_id)
        return found

    def runs(
        self,
        experiment_ids: Sequence[str],
        condition: str,
        *,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> Iterator[Run]:
        """Yield the runs of experiments that meet a condition, oldest first in each search."""
        for first in range(0, len(experiment_ids), _EXPERIMENTS_A_SEARCH):
            some = list(experiment_ids[first : first + _EXPERIMENTS_A_SEARCH])
            token = None
            while True:
                page = self.store.search_runs(
                    some,
                    condition,
                    view,
                    _RUNS_A_PAGE,
                    ["attributes.start_time ASC"],
                    token,
                )
                yield from page
                token = page.token
                if not token:
                    break

    def experiments(self) -> Iterator[Experiment]:
        """Yield every active experiment."""
        token = None
        while True:
            page = self.store.search_experiments(
                view_type=ViewType.ACTIVE_ONLY, max_results=_RUNS_A_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def repository(self, artifact_uri: str) -> Any:
        """Return the artifacts below a URI of this server."""
        uri = add_databricks_profile_info_to_artifact_uri(artifact_uri, self.tracking_uri)
        return get_artifact_repository(uri, tracking_uri=self.tracking_uri)

    def url(self, run: Run) -> str | None:
        """Return a run's page, None where the server has none."""
        return run_url(self.tracking_uri, run.info.experiment_id, run.info.run_id)

    @cached_property
    def workspace(self) -> str:
        """What to call the server for people, without a password that its URI may have."""
        if self.is_azureml:
            return AmlWorkspace.from_tracking_uri(self.tracking_uri).workspace_name
        page = run_url(self.tracking_uri, "0", "0")
        if page:
            return page.partition("/#/")[0].partition("/ml/")[0]
        scheme, separator, rest = self.tracking_uri.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"
