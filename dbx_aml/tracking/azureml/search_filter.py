"""Filters of MLflow's searches: Azure ML decides some conditions, this package decides the others.

Azure ML sees the beginning of a long value, the mapped name of an experiment, and no alias.
Conditions on such values are taken out of the filter and decided here, as MLflow's own server
decides them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlparse
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import _join_in_comparison_tokens
from sqlparse.sql import Comparison


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition in the filter of a search.

    Args:
        text: Condition as the caller wrote it, for example "params.`model` LIKE '%tree'".
        kind: Kind of the compared value: "parameter", "tag", "attribute" or "metric".
        key: Name of the parameter, tag, attribute or metric.
        comparator: Comparator in capitals, for example "LIKE".
        value: Text to compare with; None with "IS NULL" and "IS NOT NULL".
    """

    text: str
    kind: str
    key: str
    comparator: str
    value: Any

    def is_met_by(self, text: str | None) -> bool:
        """Tell whether a text meets the condition; None stands for a missing value."""
        if self.comparator == "IS NULL":
            return text is None
        if text is None:
            return False
        if self.comparator in ("LIKE", "ILIKE"):
            flags = re.DOTALL | (re.IGNORECASE if self.comparator == "ILIKE" else 0)
            pattern = re.escape(self.value).replace("%", ".*").replace("_", ".")
            return re.fullmatch(pattern, text, flags) is not None
        if self.comparator in ("=", "!="):
            return bool((text == self.value) == (self.comparator == "="))
        return self.comparator == "IS NOT NULL"


def split_filter(
    filter_string: str | None, parser: Any, is_decided_here: Callable[[Condition], bool]
) -> tuple[str | None, list[Condition]]:
    """Return the filter for Azure ML, and the conditions that this package decides.

    Azure ML gets a filter unchanged, and refuses it, if MLflow's parser refuses the filter.

    Args:
        filter_string: Filter of a search.
        parser: Class of MLflow that parses the filters of this search, for example `SearchUtils`.
        is_decided_here: Function that tells whether this package decides a condition.
    """
    if not filter_string:
        return None, []
    try:
        parsed_conditions = parser.parse_search_filter(filter_string)
    except MlflowException:
        return filter_string, []
    tokens = _join_in_comparison_tokens(sqlparse.parse(filter_string)[0].tokens)
    texts = [
        # MLflow joins the parts of "IN (...)" without the spaces between them.
        " ".join(str(part) for part in token.tokens if not part.is_whitespace)
        for token in tokens
        if isinstance(token, Comparison)
    ]
    conditions = [
        Condition(
            text=text,
            kind=parsed["type"],
            key=parsed["key"],
            comparator=" ".join(parsed["comparator"].upper().split()),
            value=parsed["value"],
        )
        for text, parsed in zip(texts, parsed_conditions, strict=True)
    ]
    decided_here = [condition for condition in conditions if is_decided_here(condition)]
    for_service = [condition.text for condition in conditions if condition not in decided_here]
    return " AND ".join(for_service) or None, decided_here
