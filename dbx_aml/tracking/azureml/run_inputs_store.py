"""What a run was given and what it made, where Azure ML keeps neither: models, old datasets."""

from collections.abc import Callable
from threading import RLock
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunData, RunInputs, RunTag

from dbx_aml.tracking.azureml.mlflow_calls import CallNotSupportedError
from dbx_aml.tracking.azureml.run_store import RunStore
from dbx_aml.tracking.azureml.tag_documents import LINKS, document_in, document_tags

try:
    from mlflow.entities import LoggedModelInput, LoggedModelOutput
    from mlflow.entities.run_outputs import RunOutputs
except ImportError:  # MLflow 2 has no logged models
    LoggedModelOutput = None  # type: ignore[assignment,misc]

Links = dict[str, Any]


class LinkStore(RunStore):
    """Inputs and outputs of runs of the store for Azure ML.

    Args:
        service_context: Of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        # What is kept in tags is read, changed and written by one thread at a time.
        self._changing = RLock()

    def log_outputs(self, run_id: str, models: Any) -> None:
        """Keep which models a run made, each with its step."""
        steps = {model.model_id: model.step for model in models}
        self._link(run_id, lambda links: links.setdefault("outputs", {}).update(steps))

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        """Keep which datasets and models a run was given."""
        if datasets:
            try:
                super().log_inputs(run_id, datasets)
            except CallNotSupportedError:
                new = [_dataset_as_json(one) for one in datasets]
                self._link(run_id, lambda links: links.setdefault("datasets", []).extend(new))
        if models:
            ids = [model.model_id for model in models]
            self._link(run_id, lambda links: links.setdefault("inputs", []).extend(ids))

    def _link(self, run_id: str, change: Callable[[Links], None]) -> None:
        with self._changing:
            links = document_in(LINKS, self._all_tags(self._plain_run(run_id))) or {}
            change(links)
            tags = [RunTag(*pair) for pair in document_tags(LINKS, links).items()]
            self.log_batch(run_id, [], [], tags)

    def _with_links(self, run: Run, shown: RunData, tags: dict[str, str]) -> Run:
        return _with_links(run, shown, document_in(LINKS, tags) or {})


def _dataset_as_json(given: DatasetInput) -> dict[str, Any]:
    """Return a dataset of a run as JSON."""
    dataset = given.dataset
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {
        "dataset": {name: getattr(dataset, name) for name in names},
        "tags": {tag.key: tag.value for tag in given.tags or []},
    }


def _with_links(run: Run, data: RunData, links: Links) -> Run:
    """Return a run with its inputs and outputs.

    Args:
        run: As the service has it.
        data: What it shall show.
        links: "outputs" (step by model), "inputs" (models) and "datasets" (as JSON).
    """
    datasets = list(run.inputs.dataset_inputs) if run.inputs else []
    for one in links.get("datasets", []):
        tags = [InputTag(key, text) for key, text in one["tags"].items()]
        datasets.append(DatasetInput(Dataset(**one["dataset"]), tags))
    if LoggedModelOutput is None:
        return Run(run.info, data, RunInputs(datasets))
    inputs = [LoggedModelInput(model_id) for model_id in links.get("inputs", [])]
    outputs = [LoggedModelOutput(model, step) for model, step in links.get("outputs", {}).items()]
    return Run(run.info, data, RunInputs(datasets, inputs), RunOutputs(outputs))
