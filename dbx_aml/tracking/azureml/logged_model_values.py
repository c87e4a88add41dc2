"""Values of metrics that this process has logged to logged models, each kept by one writer.

A writer keeps its values in tags of its own on the run of the model. So two threads or two
programs that log to one model at once never replace each other's values.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from mlflow.entities import Metric, RunTag

from dbx_aml._common.json_content import check_types
from dbx_aml.tracking.azureml.tag_documents import document_tags, value_key

# Newest values of a model that a program keeps; MLflow's own server keeps all.
_MAX_VALUES = 50
# One value of a metric: name, value, time in ms, step, name and digest of the dataset, run id.
MetricValue = list[Any]
# Name of the metric, name and digest of the dataset, run id.
MetricSeries = tuple[str, str, str, str]


def metric_value(metric: Metric, run_id: str) -> MetricValue:
    """Return the fields of a metric's value that a document keeps."""
    dataset = [metric.dataset_name or "", metric.dataset_digest or ""]
    return [metric.key, metric.value, metric.timestamp, metric.step, *dataset, run_id]


def series_of(value: MetricValue) -> MetricSeries:
    """Return the series of a value: values of one metric, dataset and run are one series."""
    return value[0], value[4], value[5], value[6]


def newest_values(values: Iterable[MetricValue]) -> list[MetricValue]:
    """Return the newest values, and the latest value of each series, oldest first."""
    ordered = sorted(values, key=lambda value: (value[2], value[3]))
    newest = ordered[-_MAX_VALUES:]
    latest = {series_of(value): value for value in ordered}
    series_of_newest = set(map(series_of, newest))
    older = [value for series, value in latest.items() if series not in series_of_newest]
    return [*older, *newest]


def newest_metrics(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the metrics of a model of which this package keeps the values."""
    values = [[*metric_value(metric, metric.run_id or ""), metric] for metric in metrics]
    return [value[-1] for value in newest_values(values)]


def is_metric_value(value: object) -> bool:
    """Tell whether a JSON value is a value of a metric as `metric_value` returns it."""
    if not isinstance(value, list) or len(value) != 7:
        return False
    key, number, timestamp, step, *series = value
    # NaN and the infinities are values of metrics.
    return (
        isinstance(number, float | int)
        and isinstance(timestamp, int)
        and isinstance(step, int)
        and max(abs(timestamp), abs(step), abs(number) if isinstance(number, int) else 0) < 2**63
        and all(isinstance(text, str) for text in (key, *series))
    )


def check_values(document: Any) -> None:
    """Refuse a document that does not hold values of metrics.

    Raises:
        ValueError: The document has no such list. The message has no text of the document.
    """
    check_types(document, {"values": list})
    if not all(map(is_metric_value, document.get("values", []))):
        raise ValueError("values must be a list of values with their series")


class ValueWriter:
    """The values that one thread at a time logs to models.

    Attributes:
        values: Values that this writer has logged, by model id.
        unsent: Models whose tags lack some of these values.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[MetricValue]] = {}
        self.unsent: set[str] = set()
        self._name = uuid4().hex[:8]

    def with_metrics(self, run_id: str, metrics: Sequence[Metric]) -> dict[str, list[MetricValue]]:
        """Return what the values of models are after metrics of a run, by model id."""
        values: dict[str, list[MetricValue]] = {}
        for metric in metrics:
            values.setdefault(metric.model_id, []).append(metric_value(metric, run_id))
        return {
            model_id: newest_values([*self.values.get(model_id, []), *added])
            for model_id, added in values.items()
        }

    def has_all_series(self, model_id: str, values: Sequence[MetricValue]) -> bool:
        """Tell whether this writer has logged a value of each series to a model before."""
        return set(map(series_of, self.values.get(model_id, []))) >= set(map(series_of, values))

    def tags(self, model_key: str, values: Sequence[MetricValue]) -> list[RunTag]:
        """Return the tags of the model's run that keep values of this writer."""
        texts = document_tags(value_key(model_key, self._name), {"values": values})
        return [RunTag(key, text) for key, text in texts.items()]


class ValueWriters:
    """The writers of a store: as many as threads have logged to models at once."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._free_writers: list[ValueWriter] = []

    @contextmanager
    def borrow(self) -> Iterator[ValueWriter]:
        """Return a writer that no other thread has meanwhile."""
        if self._pid != os.getpid():
            # A forked process must not write the tags of its parent.
            self._pid, self._free_writers = os.getpid(), []
        free_writers = self._free_writers
        try:
            writer = free_writers.pop()
        except IndexError:
            writer = ValueWriter()
        try:
            yield writer
        finally:
            free_writers.append(writer)

    @contextmanager
    def borrow_all(self) -> Iterator[list[ValueWriter]]:
        """Return the writers that no thread has at the moment."""
        free_writers = self._free_writers if self._pid == os.getpid() else []
        writers = [free_writers.pop() for _ in range(len(free_writers))]
        try:
            yield writers
        finally:
            free_writers.extend(writers)
