"""Names of registered models: accepted or refused by each registry, and mapped for a copy."""

import re

import pytest

from dbx_aml._common.errors import ArgumentError
from dbx_aml.models.model_names import check_model_name, map_model_name

AML = (
    "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/"
    "8c1e5a90-2b7d-4c8e-9f11-3d5a7b9c0e42/resourceGroups/rg/providers/"
    "Microsoft.MachineLearningServices/workspaces/mlw"
)


@pytest.mark.parametrize(
    ("name", "registry_uri", "mapped"),
    [
        ("main.ml.delay", AML, "main-ml-delay"),
        ("delay", AML, "delay"),
        ("main.ml.delay", "databricks", "main-ml-delay"),
        ("main.ml.delay", "http://mlflow.contoso.com", "main.ml.delay"),
        ("main.ml.delay", "databricks-uc", "main.ml.delay"),
        ("main.ml-x.delay", AML, "main-ml-x-delay-[0-9a-f]{8}"),
        ("größe", AML, "gr-e-[0-9a-f]{8}"),
    ],
)
def test_a_name_is_mapped_only_where_the_registry_refuses_it(
    name: str, registry_uri: str, mapped: str
) -> None:
    found = map_model_name(name, registry_uri)
    assert re.fullmatch(mapped, found), found
    assert check_model_name(found, registry_uri) == found


def test_two_names_do_not_become_one() -> None:
    names = ["main.ml.delay", "main.ml-delay.x", "main-ml.delay.x", "größe", "x.y"]
    assert len({map_model_name(name, AML) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["delay", "main.delay", "main..delay", "a.b.c.d", "a.b.c d"])
def test_unity_catalog_takes_only_names_of_three_parts(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        map_model_name(name, "databricks-uc")
    assert str(caught.value) == (
        "name of a registered model in Unity Catalog must have three parts, for example "
        f"'main.ml.delay': got {name!r}; pass another name as destination"
    )


@pytest.mark.parametrize("name", ["", "a b", "a.b", "-a", "a" * 256, "größe"])
def test_azure_ml_takes_only_letters_digits_dashes_and_underscores(name: str) -> None:
    with pytest.raises(ArgumentError, match="in Azure ML must have 1 to 255 letters"):
        check_model_name(name, AML)
