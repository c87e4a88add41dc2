"""JSON that others wrote, read without trust in its depth and its types.

No message of this module repeats text of the JSON: it may be a secret.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

# Levels of nesting; the files of this package have at most four.
_MAX_DEPTH = 32


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is no JSON, or is nested so deeply that a reader could fail.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it is no JSON"
    else:
        problem = "it is nested too deeply" if _is_too_deep(value) else ""
    if problem:
        # Outside of the handler: the error of JSON's decoder carries the whole text.
        raise ValueError(problem)
    return value


def check_types(value: object, type_hints: Mapping[str, Any]) -> None:
    """Refuse a JSON value that is no object, or that has a wrong type under a known key.

    Args:
        value: Value of `parse_json`.
        type_hints: Type by key, see `has_type`. A key may be missing; other keys are ignored.

    Raises:
        ValueError: A type is wrong. The message names the known key and the right type.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"it is a {type(value).__name__}")
    for key, hint in type_hints.items():
        if key in value and not has_type(value[key], hint):
            raise ValueError(f"{key} must be {_describe(hint)}")


def read_fields(value: object, kind: type, required: str) -> dict[str, Any]:
    """Return the values of a dataclass's fields in a JSON object; other keys are ignored.

    Args:
        value: Value of `parse_json`.
        kind: Dataclass; its fields have the types that `has_type` knows.
        required: Field that the object must have.

    Raises:
        ValueError: A type is wrong, or the required field is missing.
    """
    check_types(value, get_type_hints(kind))
    content = cast(Mapping[str, Any], value)
    if required not in content:
        raise ValueError(f"it has no {required}")
    return {field.name: content[field.name] for field in fields(kind) if field.name in content}


def has_type(value: object, hint: Any) -> bool:
    """Tell whether a JSON value has a type, also in everything that it contains.

    Args:
        value: Value of `parse_json`.
        hint: `Any`, `str`, `bool`, `float` for any finite number, `None`, `Literal`,
            `Mapping[str, ...]`, `tuple[..., ...]` for a list, a dataclass for an object with its
            fields, or a union.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(has_type(value, argument) for argument in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, list) and all(has_type(item, arguments[0]) for item in value)
    if is_dataclass(hint):
        return isinstance(value, Mapping) and all(
            name in value and has_type(value[name], field_hint)
            for name, field_hint in get_type_hints(hint).items()
        )
    if origin is not None:
        return isinstance(value, Mapping) and all(
            has_type(key, arguments[0]) and has_type(item, arguments[1])
            for key, item in value.items()
        )
    if hint is Any:
        return True
    if hint is str:
        return isinstance(value, str) and _is_encodable(value)
    if hint is float:
        return _is_finite_number(value)
    return isinstance(value, hint or NoneType)


def _is_encodable(text: str) -> bool:
    """Tell whether a text can be printed: JSON can hold halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        containers = [item for item in level if isinstance(item, dict | list)]
        level = [
            item
            for container in containers
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return bool(level)


def _describe(hint: Any) -> str:
    """Return the type of a hint in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is Literal:
        return f"one of {list(arguments)}"
    if origin is tuple:
        return f"a list, each {_describe(arguments[0])}"
    if origin is not None or is_dataclass(hint):
        return "an object with the right fields"
    return {str: "text", float: "a number", bool: "true or false"}.get(hint, "null")
