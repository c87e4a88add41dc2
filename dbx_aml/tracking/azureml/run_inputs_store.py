"""Inputs and outputs of runs that Azure ML lacks: models, and datasets in old workspaces."""

from collections.abc import Mapping
from threading import RLock
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunData, RunInputs, RunTag

from dbx_aml._common.json_content import check_types
from dbx_aml.tracking.azureml.mlflow_calls import CallNotSupportedError
from dbx_aml.tracking.azureml.run_overflow import UnreadableRunError
from dbx_aml.tracking.azureml.run_store import RunStore
from dbx_aml.tracking.azureml.tag_documents import (
    RUN_INPUTS,
    CheckDocument,
    document_in_tags,
    document_tags,
)

try:
    from mlflow.entities import LoggedModelInput, LoggedModelOutput
    from mlflow.entities.run_outputs import RunOutputs
except ImportError:  # MLflow 2 has no logged models
    LoggedModelOutput = None  # type: ignore[assignment,misc]

# "outputs" (step by model id), "inputs" (model ids) and "datasets" (as JSON) of a run.
InputsDocument = dict[str, Any]
_TYPES_BY_KEY = {
    "outputs": Mapping[str, int],
    "inputs": tuple[str, ...],
    "datasets": tuple[Mapping[str, Mapping[str, str | None]], ...],
}
_DATASET_FIELDS = ("name", "digest", "source_type", "source")
_OPTIONAL_DATASET_FIELDS = ("schema", "profile")


class RunInputsStore(RunStore):
    """Inputs and outputs of runs of the store for Azure ML.

    Args:
        service_context: Service context of the workspace.
    """

    def __init__(self, service_context: Any) -> None:
        super().__init__(service_context)
        # One thread at a time reads, changes and writes documents in tags.
        self._document_lock = RLock()

    def log_outputs(self, run_id: str, models: Any) -> None:
        """Keep the models that a run created, each with its step."""
        self._change_inputs(run_id, outputs={model.model_id: model.step for model in models})

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:
        """Keep the datasets and models that a run used."""
        if datasets:
            try:
                super().log_inputs(run_id, datasets)
            except CallNotSupportedError:
                new_datasets = [_dataset_to_dict(dataset) for dataset in datasets]
                self._change_inputs(run_id, datasets=new_datasets)
        if models:
            self._change_inputs(run_id, inputs=[model.model_id for model in models])

    def _change_inputs(
        self, run_id: str, *, datasets: Any = (), inputs: Any = (), outputs: Any = ()
    ) -> None:
        """Add datasets, input models and output models to a run, each of them once."""
        with self._document_lock:
            tags = self._all_tags(self._get_stored_run(run_id))
            stored = self._read_inputs(run_id, tags)
            document = stored | {
                "datasets": _without_repeats([*stored.get("datasets", []), *datasets]),
                "inputs": list(dict.fromkeys([*stored.get("inputs", []), *inputs])),
                "outputs": stored.get("outputs", {}) | dict(outputs),
            }
            if document == stored:
                return
            new_tags = [
                RunTag(key, text) for key, text in document_tags(RUN_INPUTS, document).items()
            ]
            self.log_batch(run_id, [], [], new_tags)

    def _with_inputs(self, run: Run, data: RunData, tags: dict[str, str]) -> Run:
        """Return a run with other data, and with the inputs and outputs that its tags hold."""
        document = self._read_inputs(run.info.run_id, tags)
        datasets = list(run.inputs.dataset_inputs) if run.inputs else []
        datasets += [_dataset_from_dict(dataset) for dataset in document.get("datasets", [])]
        if LoggedModelOutput is None:
            return Run(run.info, data, RunInputs(datasets))
        inputs = [LoggedModelInput(model_id) for model_id in document.get("inputs", [])]
        outputs = [
            LoggedModelOutput(model_id, step)
            for model_id, step in document.get("outputs", {}).items()
        ]
        return Run(run.info, data, RunInputs(datasets, inputs), RunOutputs(outputs))

    def _read_inputs(self, run_id: str, tags: Mapping[str, str]) -> InputsDocument:
        return self._readable_document(run_id, RUN_INPUTS, tags, check_inputs) or {}

    def _readable_document(
        self, run_id: str, key: str, tags: Mapping[str, str], check: CheckDocument
    ) -> dict[str, Any] | None:
        """Return a document in the tags of a run; None, with a warning, if it is unreadable."""
        try:
            return read_document(run_id, key, tags, check)
        except UnreadableRunError as error:
            self._warn_of_run(run_id, error)
            return None


def read_document(
    run_id: str, key: str, tags: Mapping[str, str], check: CheckDocument
) -> dict[str, Any] | None:
    """Return a document in the tags of a run; None if the tags have none.

    Raises:
        UnreadableRunError: The tags hold something else than such a document.
    """
    try:
        return document_in_tags(key, tags, check)
    except ValueError as error:
        raise UnreadableRunError(run_id, f"tag {key!r}", str(error)) from error


def check_inputs(document: Any) -> None:
    """Refuse a document that does not hold the inputs and outputs of a run.

    Raises:
        ValueError: A key has a value of a wrong type.
    """
    check_types(document, _TYPES_BY_KEY)
    for entry in document.get("datasets", []):
        fields, tags = entry.get("dataset", {}), entry.get("tags", {None: None})
        is_complete = fields.keys() == {*_DATASET_FIELDS, *_OPTIONAL_DATASET_FIELDS}
        if not is_complete or None in [*tags.values(), *map(fields.get, _DATASET_FIELDS)]:
            raise ValueError("a dataset must have its fields and tags as texts")


def _without_repeats(datasets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first dataset of each name and digest, which MLflow takes for one dataset."""
    by_name: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in datasets:
        by_name.setdefault((entry["dataset"]["name"], entry["dataset"]["digest"]), entry)
    return list(by_name.values())


def _dataset_to_dict(dataset_input: DatasetInput) -> dict[str, Any]:
    """Return a dataset and its tags as JSON can hold them."""
    dataset = dataset_input.dataset
    names = (*_DATASET_FIELDS, *_OPTIONAL_DATASET_FIELDS)
    return {
        "dataset": {name: getattr(dataset, name) for name in names},
        "tags": {tag.key: tag.value for tag in dataset_input.tags or []},
    }


def _dataset_from_dict(fields: dict[str, Any]) -> DatasetInput:
    tags = [InputTag(key, text) for key, text in fields["tags"].items()]
    return DatasetInput(Dataset(**fields["dataset"]), tags)
