"""Counts names that do not say which thing or which action they stand for.

Each definition counts once: modules, classes, functions, parameters, attributes, fields, and the
constants and variables of a module. Names of one letter, dunder names, members of an Enum, local
variables and names that a protocol of Python or HTTP fixes do not count. A name is vague if every
word of it is on the lists below. On dlt, httpx, delta-rs, databricks-sdk-py and stamina at most
0.5 % of the names are vague.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Words that only join others do not count.
CONNECTIVES = set(
    "a an the is are was be has have had can may must should will do does did of to for from"
    " in into on onto at by with without as and or not no non if than then up out off over per"
    " via".split()
)

# English pronouns and adverbs that work like them: the reader must search elsewhere for the thing.
PRONOUNS = set(
    "it its itself they them their this that these those one ones other others another both each"
    " either neither every everyone everything any anyone anything some somebody someone something"
    " none nobody nothing all who whom whose whoever what whatever which whichever where wherever"
    " when whenever why how here there elsewhere else me my mine our ours us you your yours own he"
    " she his her him same such more most less least few many much rest again anew now before"
    " after earlier later once twice alone apart together yet still already ever never so too also"
    " only just back away aside beside near far meanwhile quietly anyway".split()
)

# Verbs of everyday speech. A function named "look" or "need" hides its object and its result.
# Technical verbs (read, write, open, send, load, parse, run ...) are allowed: the class around them
# is their object.
VERBS = set(
    "look looks looking see sees seeing say says saying tell tells telling ask asks asking answer"
    " answers speak speaks hear hears listen think thinks know knows need needs want wants wish"
    " give gives giving take takes taking keep keeps keeping hold holds holding bring brings go"
    " goes going come comes coming make makes making puts let lets leave leaves having gather gain"
    " gains get gets got try tries trying prove proves proving judge judges stir settle settles"
    " expect expects note notes mark marks marking hide happen happens stay stays end ends begin"
    " begins feel seem mean means hope guess fix touch turn turns hang hurry due work works"
    " working use uses using handle process manage perform".split()
)

# Participles of these verbs in the place of a noun. Technical participles (parsed, encoded, cached,
# closed, loaded ...) are allowed: they name a defined state.
PARTICIPLES = set(
    "looked seen watched said told asked answered spoken spelled heard thought known unknown"
    " needed wanted wished given taken kept held brought gone come made unmade put left had"
    " gathered gained got gotten tried untried proved proven judged stirred settled unsettled"
    " expected noted marked unmarked hidden done undone happened stayed ended begun began felt"
    " meant hoped guessed fixed touched turned worked used unused handled shown passed born lost"
    " sent drawn pulled pushed picked chosen found explained".split()
)

# Nouns that can replace every other noun, and figures of speech.
NOUNS = set(
    "thing things stuff part parts piece pieces place places side sides case cases matter way"
    " ways fact facts word words story stories proof proofs prover outcome finding findings point"
    " points pair pairs question questions shape sense aspect bit bits bunch lot lots misc"
    " miscellaneous various general generic util utils utility utilities helper helpers common"
    " affair about thingy foo bar baz tmp temp dummy".split()
)

VAGUE = PRONOUNS | VERBS | PARTICIPLES | NOUNS
# Python (operators, files, futures, threads) or HTTP fixes these names.
SKIPPED = set(
    "self cls mcs args kwargs other get put tell end done use set_result exit do_get do_put".split()
)


class Name(NamedTuple):
    """The definition of a name."""

    file: Path
    line: int
    kind: str
    name: str

    @property
    def word_list(self) -> list[str]:
        """The words of the name in small letters, from snake_case or CamelCase."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name)
        return [word.lower() for word in re.split(r"[_\d]+", spaced) if word]

    @property
    def is_vague(self) -> bool:
        """Whether no word of the name is a thing or an action of the field."""
        words = [word for word in self.word_list if word not in CONNECTIVES]
        return bool(words) and all(word in VAGUE for word in words)


def python_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the Python files of some files and folders."""
    for path in paths:
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def names_of(file: Path) -> Iterator[Name]:
    """Yield the name of a module and every name that it defines."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError):
        return
    if file.stem not in ("__init__", "__main__", "conftest", "setup"):
        yield Name(file, 1, "module", file.stem)
    yield from _of_body(file, tree.body, "variable")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield Name(file, node.lineno, "class", node.name)
            if not any("Enum" in ast.unparse(base) for base in node.bases):
                yield from _of_body(file, node.body, "attribute")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Name(file, node.lineno, "function", node.name)
            a = node.args
            for argument in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]:
                if argument is not None:
                    yield Name(file, argument.lineno, "parameter", argument.arg)
            yield from _self_attributes(file, node)


def _of_body(file: Path, body: list[ast.stmt], kind: str) -> Iterator[Name]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            elements = target.elts if isinstance(target, ast.Tuple) else [target]
            for element in elements:
                if isinstance(element, ast.Name):
                    yield Name(file, node.lineno, kind, element.id)


def _self_attributes(file: Path, function: ast.AST) -> Iterator[Name]:
    seen = set()
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and node.attr not in seen
        ):
            seen.add(node.attr)
            yield Name(file, node.lineno, "attribute", node.attr)


def counted_names(paths: Iterable[Path]) -> list[Name]:
    """Return the names that count, vague or not."""
    return [
        name
        for file in python_files(paths)
        for name in names_of(file)
        if len(name.name.strip("_")) > 1
        and name.name.strip("_").lower() not in SKIPPED
        and not (name.name.startswith("__") and name.name.endswith("__"))
    ]
