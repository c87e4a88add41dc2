"""Long lists and texts in pieces of a size that a service accepts in one call."""

from collections.abc import Sequence
from typing import Any, TypeVar

Entries = TypeVar("Entries", bound=Sequence[Any])


def split_chunks(entries: Entries, size: int) -> list[Entries]:
    """Return a list or a text in pieces of a size, the last one shorter; none if it is empty."""
    return [entries[start : start + size] for start in range(0, len(entries), size)]  # type: ignore[misc]
