"""The highest layer of the tracking store for Azure ML: background logging, no traces."""

from threading import Lock
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.async_logging.run_operations import RunOperations

from dbx_aml._common.log import get_logger
from dbx_aml.tracking.azureml.async_logging import AsyncLoggingQueue
from dbx_aml.tracking.azureml.logged_model_store import LoggedModelStore
from dbx_aml.tracking.azureml.service_context import service_context_of

log = get_logger(__name__)
# With this tag MLflow searches the spans of a trace in the tracking store, and uploads nothing.
_SPANS_IN_STORE = {"mlflow.trace.spansLocation": "TRACKING_STORE"}


class TracesNotSupportedError(MlflowException):
    """Azure ML does not store traces."""


class AmlTrackingStore(LoggedModelStore):
    """The tracking store of one workspace.

    Args:
        service_context: Service context of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        self._async_logging_queue = AsyncLoggingQueue(self.log_batch)
        self._has_traces = True
        # MLflow sends traces from several threads.
        self._warning_lock = Lock()

    @classmethod
    def from_uri(cls, uri: str) -> "AmlTrackingStore":
        """Return the store of the workspace that a URI names, without a request."""
        return cls(service_context_of(uri))

    def log_batch_async(self, run_id: str, metrics: Any, params: Any, tags: Any) -> RunOperations:
        """Queue metrics, parameters and tags, and return before they are sent."""
        return self._async_logging_queue.log_batch_async(
            run_id=run_id, metrics=metrics, params=params, tags=tags
        )

    def update_run_info(self, run_id: str, *args: Any, **kwargs: Any) -> Any:
        """Change a run after the background thread has sent everything."""
        self._async_logging_queue.flush()
        return super().update_run_info(run_id, *args, **kwargs)

    def start_trace(self, trace_info: Any) -> Any:
        """Leave a trace out, because Azure ML refuses it; MLflow goes on as if it were stored."""
        try:
            return super().start_trace(trace_info)
        except TracesNotSupportedError:
            trace_info.tags.update(_SPANS_IN_STORE)
            return trace_info

    def search_traces(self, *args: Any, **kwargs: Any) -> Any:
        """Return traces: an empty list, if Azure ML refuses the call."""
        try:
            return super().search_traces(*args, **kwargs)
        except TracesNotSupportedError:
            return [], None

    def log_spans(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `NotImplementedError`, after which MLflow sends no spans."""
        raise NotImplementedError("Azure ML keeps no spans")

    def link_traces_to_run(self, *args: Any, **kwargs: Any) -> None:
        """Link traces to a run, or do nothing if Azure ML refuses the call."""
        try:
            super().link_traces_to_run(*args, **kwargs)
        except TracesNotSupportedError:
            log.debug("left out a link of traces to a run")

    def set_trace_tag(self, *args: Any, **kwargs: Any) -> None:
        """Set a tag of a trace, or do nothing if Azure ML refuses the call."""
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
                with self._warning_lock:
                    if self._has_traces:
                        log.warning("Azure ML takes no traces: none are kept, runs are unaffected")
                    self._has_traces = False
        raise TracesNotSupportedError("Azure ML takes no traces")
