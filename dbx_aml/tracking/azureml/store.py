"""MLflow's tracking store for Azure ML, its last layer: background logging; traces left out."""

import logging
from threading import Lock
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.async_logging.run_operations import RunOperations

from dbx_aml.tracking.azureml.async_logging import AsyncLog
from dbx_aml.tracking.azureml.logged_model_store import LoggedModelStore
from dbx_aml.tracking.azureml.service_context import context_of

log = logging.getLogger(__name__)
# MLflow then looks for a trace's spans in the tracking store, and uploads nothing.
_SPANS_ARE_ELSEWHERE = {"mlflow.trace.spansLocation": "TRACKING_STORE"}


class TracesNotSupportedError(MlflowException):
    """Azure ML takes no traces."""


class AmlTrackingStore(LoggedModelStore):
    """The tracking store of one workspace.

    Args:
        service_context: Of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        self._async_logging_queue = AsyncLog(self.log_batch)
        self._has_traces = True
        # Traces are sent by several threads.
        self._warning = Lock()

    @classmethod
    def of(cls, uri: str) -> "AmlTrackingStore":
        """Return the store of the workspace that a URI names; it asks nothing yet."""
        return cls(context_of(uri))

    def log_batch_async(self, run_id: str, metrics: Any, params: Any, tags: Any) -> RunOperations:
        """Take metrics, parameters and tags, and return before they are sent."""
        return self._async_logging_queue.log_batch_async(
            run_id=run_id, metrics=metrics, params=params, tags=tags
        )

    def update_run_info(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """Change a run once everything that was logged to it in the background is there."""
        self._async_logging_queue.flush()
        return super().update_run_info(run_id, *args, **kwargs)

    def start_trace(self, trace_info: Any) -> Any:
        """Leave a trace out, as Azure ML refuses it; MLflow goes on as if it were kept."""
        try:
            return super().start_trace(trace_info)
        except TracesNotSupportedError:
            trace_info.tags.update(_SPANS_ARE_ELSEWHERE)
            return trace_info

    def search_traces(self, *args: Any, **kwargs: Any) -> Any:
        """Return the traces there are: none."""
        try:
            return super().search_traces(*args, **kwargs)
        except TracesNotSupportedError:
            return [], None

    def log_spans(self, *args: Any, **kwargs: Any) -> Any:
        """Say that this store keeps no spans; MLflow then stops sending them."""
        raise NotImplementedError("Azure ML keeps no spans")

    def link_traces_to_run(self, *args: Any, **kwargs: Any) -> None:
        """Link traces to a run, where there are any."""
        try:
            super().link_traces_to_run(*args, **kwargs)
        except TracesNotSupportedError:
            log.debug("left out a link of traces to a run")

    def set_trace_tag(self, *args: Any, **kwargs: Any) -> None:
        """Set a trace's tag, where there is one."""
        try:
            super().set_trace_tag(*args, **kwargs)
        except TracesNotSupportedError:
            log.debug("left out a tag of a trace")

    def _call_endpoint(
        self, api: Any, json_body: str | None = None, endpoint: str | None = None, **options: Any
    ) -> Any:
        if "Trace" not in api.__name__:
            return super()._call_endpoint(api, json_body, endpoint, **options)
        if self._has_traces:
            try:
                return super()._call_endpoint(api, json_body, endpoint, **options)
            except MlflowException as error:
                if str(error.error_code) not in ("PERMISSION_DENIED", "ENDPOINT_NOT_FOUND"):
                    raise
                with self._warning:
                    if self._has_traces:
                        log.warning("Azure ML takes no traces: none are kept, runs are unaffected")
                    self._has_traces = False
        raise TracesNotSupportedError("Azure ML takes no traces")
