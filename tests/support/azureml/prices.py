"""Azure's retail prices, which need no token.

Source:
    Microsoft Learn, "Azure Retail Prices overview"; seen 2026-11.
"""

import re

from tests.support.http.messages import Request, Response, json_response

# Type, product, kind, USD an hour. Each type also has prices that no on-demand instance costs.
_PRICES = (
    ("Standard_DS3_v2", "Virtual Machines DSv2 Series", "DS3 v2", 0.25),
    ("Standard_DS3_v2", "Virtual Machines DSv2 Series", "DS3 v2 Spot", 0.05),
    ("Standard_DS3_v2", "Virtual Machines DSv2 Series", "DS3 v2 Low Priority", 0.06),
    ("Standard_DS3_v2", "Virtual Machines DSv2 Series Windows", "DS3 v2", 0.4),
    ("Standard_DS3_v2", "DSv2 Series Cloud Services", "DS3 v2", 0.3),
    # Two prices: which one counts is not known.
    ("Standard_F2s_v2", "Virtual Machines FSv2 Series", "F2s v2", 0.1),
    ("Standard_F2s_v2", "Virtual Machines FSv2 Series", "F2s v2", 0.2),
)
_REGION = "westeurope"


def retail_prices(request: Request) -> Response:
    """Answer with the prices that the filter of a request selects; a token is a fault."""
    if "authorization" in request.headers:
        return Response(status=400, body=b"This host gets no token.")
    conditions = dict(re.findall(r"(\w+) eq '([^']*)'", request.query.get("$filter", "")))
    items = [
        {
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": price,
            "unitPrice": price,
            "armRegionName": _REGION,
            "productName": product,
            "skuName": sku,
            "serviceName": "Virtual Machines",
            "unitOfMeasure": "1 Hour",
            "type": "Consumption",
            "armSkuName": instance_type,
        }
        for instance_type, product, sku, price in _PRICES
    ]
    names = {"priceType": "type"}
    selected = [
        item
        for item in items
        if all(item.get(names.get(key, key)) == text for key, text in conditions.items())
    ]
    content = {
        "BillingCurrency": "USD",
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": selected,
        "NextPageLink": None,
        "Count": len(selected),
    }
    return json_response(content)
