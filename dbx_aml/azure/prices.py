"""Retail prices of Azure's virtual machines, which are also the prices of Azure ML's instances.

Source:
    Microsoft Learn, "Azure Retail Prices overview"; seen 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dbx_aml._common.deadline import time_limit
from dbx_aml._common.errors import DbxAmlError
from dbx_aml._common.http import send
from dbx_aml._common.json_content import parse_json
from dbx_aml._common.retry import RetryPolicy

PRICES_HOST = "prices.azure.com"
# Prices are no reason to wait: a network may be closed to this host.
PRICES_TIMEOUT_S = 3.0
_INSTANCE_TYPE = re.compile(r"Standard_\w+", re.ASCII)
_INTERRUPTED = ("Spot", "Low Priority")


def read_hourly_prices(location: str, instance_types: Iterable[str]) -> dict[str, float]:
    """Return the retail price of an hour of some instance types.

    The service needs no token. It gets the region and the types.

    Args:
        location: Region, for example "westeurope".
        instance_types: For example ["Standard_DS3_v2"].

    Returns:
        Prices in USD by type. A type is left out if the service does not answer within 3 seconds,
        or has no price or several prices for it.
    """
    prices: dict[str, float] = {}
    try:
        with time_limit(PRICES_TIMEOUT_S):
            for instance_type in dict.fromkeys(instance_types):
                if _INSTANCE_TYPE.fullmatch(instance_type):
                    price = _read_price(location, instance_type)
                    if price is not None:
                        prices[instance_type] = price
    except (DbxAmlError, ValueError):
        # A list without prices is better than no list.
        pass
    return prices


def _read_price(location: str, instance_type: str) -> float | None:
    conditions = {
        "serviceName": "Virtual Machines",
        "priceType": "Consumption",
        "armRegionName": location,
        "armSkuName": instance_type,
    }
    response = send(
        "GET",
        f"https://{PRICES_HOST}/api/retail/prices",
        RetryPolicy(timeout_s=PRICES_TIMEOUT_S, max_attempts=1),
        params={"$filter": " and ".join(f"{key} eq '{text}'" for key, text in conditions.items())},
    )
    if response.status_code != 200:
        return None
    content = parse_json(response.text)
    items = content.get("Items") if isinstance(content, Mapping) else None
    prices = {item["retailPrice"] for item in items or () if _is_linux_on_demand(item)}
    return float(prices.pop()) if len(prices) == 1 else None


def _is_linux_on_demand(item: Any) -> bool:
    """Tell whether a price is of a virtual machine with Linux, on demand."""
    if not isinstance(item, Mapping):
        return False
    product, sku = str(item.get("productName")), str(item.get("skuName"))
    return (
        isinstance(item.get("retailPrice"), int | float)
        and (item.get("unitOfMeasure"), item.get("currencyCode")) == ("1 Hour", "USD")
        and product.startswith("Virtual Machines")
        and not product.endswith("Windows")
        and not any(word in sku for word in _INTERRUPTED)
    )
