"""Retail prices: one price of an on-demand Linux machine, or none, and no long wait."""

from typing import Any

import pytest

from dbx_aml.azure.prices import read_hourly_prices
from tests.support.azureml import AzureMl

pytestmark = pytest.mark.azureml


def test_the_price_of_a_linux_machine_on_demand_is_read_without_a_token(
    azureml_client: Any, azureml: AzureMl
) -> None:
    types = ["Standard_DS3_v2", "Standard_DS3_v2", "Standard_F2s_v2", "Standard_X", "a' or 'b"]
    assert read_hourly_prices("westeurope", types) == {"Standard_DS3_v2": 0.25}
    assert len(azureml.requests(host="prices.azure.com")) == 3
    assert read_hourly_prices("eastus", types) == {}


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 500}, {"kind": "drop"}])
def test_without_an_answer_there_is_no_price(
    azureml_client: Any, azureml: AzureMl, fault: Any
) -> None:
    azureml.fault(host="prices", **fault)
    assert read_hourly_prices("westeurope", ["Standard_DS3_v2"]) == {}
