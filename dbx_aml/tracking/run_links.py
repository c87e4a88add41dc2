"""What a run was given and what it made, where Azure ML keeps neither: models, old datasets."""

from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunData, RunInputs

try:
    from mlflow.entities import LoggedModelInput, LoggedModelOutput
    from mlflow.entities.run_outputs import RunOutputs
except ImportError:  # MLflow 2 has no logged models
    LoggedModelOutput = None  # type: ignore[assignment,misc]

Links = dict[str, Any]


def dataset_as_json(given: DatasetInput) -> dict[str, Any]:
    """Return a dataset of a run as JSON."""
    dataset = given.dataset
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {
        "dataset": {name: getattr(dataset, name) for name in names},
        "tags": {tag.key: tag.value for tag in given.tags or []},
    }


def with_links(run: Run, data: RunData, links: Links) -> Run:
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
