"""Counts sentences in docstrings, comments and Markdown that a reader must solve like a riddle.

A doc line is a non-empty line of a docstring, of a comment, or of Markdown prose. Code blocks, link
targets and commented-out code are left out. A sentence counts at most once, for the first pattern
that matches it. On dlt, httpx, delta-rs, databricks-sdk-py and stamina the patterns match 0 to 5
sentences in 1,000 doc lines.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_EVERYDAY = (
    r"(?:said|told|asked|judged|looked|thought|gone|proved|begun|spoken|lent|meant|heard|taken for"
    r"|passed over|passed by|worked off|put back|put there|brought|let go|given up)"
)
_CLAUSE_END = r"(?= ?[.,;:)]|$| already| by now| then| too| no longer| any more)"
PATTERNS = {
    "fragment": re.compile(
        r"^(?:It|They|Them|Those|Who|Whom|Whose|Which|What|Where|Whoever|One|Ones|Others|Of|That)\b"
        r"(?! (?:of|type|kind|case|alternative|default)\b)"
        r"|^As (?:it|they|`)|^(?:By|With|In) (?:it|its)\b"
    ),
    "relative": re.compile(
        r"\bwhat (?:is|was|are|were|it|they|he|has|have|had|there|somebody|nobody|comes?|goes"
        r"|counts|follows|remains|stays|others?)\b"
        r"|(?:^|[,;:(] ?|\b(?:and|or|by|of|for|from|than|as|is|says?|tells?|but) )"
        r"who(?:ever|m)? (?:is|was|has|had|may|can|asks?|calls?|gave|gives|wants|reads|says|looks?"
        r"|meets|sees|knows|made|only|else|it|they)\b",
        re.IGNORECASE,
    ),
    "pro-form": re.compile(
        r"\b(?:this|that|each|another|its|their|our|your|wrong|longer|later|earlier) ones?\b"
        r"|\b(?:those|that) of\b|\bof (?:ours|theirs|its own|their own|our own|his own)\b"
        rf"|\bas (?:it|they) (?:is|are|was|were|has|have|had){_CLAUSE_END}",
        re.IGNORECASE,
    ),
    "somebody": re.compile(
        r"\b(?:somebody|nobody|anybody|everybody|whoever|whomever|a person)\b", re.IGNORECASE
    ),
    "empty-be": re.compile(
        rf"\b(?:is|are|was|were|be|been) (?:not )?(?:there|here|none){_CLAUSE_END}"
        r"|\b(?:where|if|unless) there (?:is|are|was|were) (?:none|one|nothing|somebody|nobody)\b"
        r"|\bit is (?:no|none|neither) \w+\b(?<! no longer)(?<! no more)"
    ),
    "passive": re.compile(
        r"\b(?:is|are|was|were|be|been|being)(?: (?:not|then|also|only|never|still|already))?"
        rf" {_EVERYDAY}\b(?! (?:to|as|of)\b)",
        re.IGNORECASE,
    ),
    "archaic": re.compile(
        r"\b(?:be it|anew|lest|whence|thence|ere|by way of|at hand|in force|to be had|may be had"
        r"|be that|for (?:it|they|he) (?:is|are|was|were|has|have|may|can|must|knows?|never)"
        r"|what of|all the same|nor (?:do|does|is|are|can|may|has|have))\b",
        re.IGNORECASE,
    ),
}
# Function words of English and everyday verbs: a sentence of these alone names nothing.
FUNCTION_WORDS = set(
    "a an the this that these those it its itself they them their he him his she her we us our"
    " ours you your i me my mine theirs one ones other others another each every either neither"
    " both all any some none no not nor and or but if then than else when whenever while where"
    " wherever why how who whom whose whoever what whatever which whichever as at by for from in"
    " into of off on onto out over to under up upon with within without about above below after"
    " before again anew against along among around away back because beside besides between beyond"
    " down during except here there hence now once only own same so still such too also even ever"
    " never just more most much many less least few little rather quite very well yet already"
    " later earlier first last next new old is are was were be been being am do does did done"
    " doing has have had having can could may might must shall should will would let need needs"
    " needed go goes gone going went come comes came get gets got give gives gave given take takes"
    " took taken put puts make makes made keep keeps kept hold holds held say says said tell tells"
    " told ask asks asked know knows knew known see sees saw seen look looks looked find finds"
    " found think thought want wants wanted mean means meant seem seems stay stays stayed happen"
    " happens happened begin begins begun end ends ended try tries tried use uses used leave"
    " leaves left bring brings brought like likes thing things way ways part parts side sides"
    " place places case cases something anything nothing everything somebody nobody together apart"
    " alone twice always often sometimes instead meanwhile otherwise anyway it's that's isn't"
    " doesn't until since though although unless whether".split()
)
_SECTIONS = re.compile(
    r"(Args|Arguments|Parameters|Returns|Raises|Yields|Attributes|Source|Shape|Units|Note|Notes"
    r"|Examples?|See also|Warning):$",
    re.IGNORECASE,
)
_ENTRY = re.compile(
    r"^(?:\*{0,2}[\w.`,/ |]{1,60}?(?: \([^)]*\))?|:param \w+|:returns?|:raises \w+): +(.*)$"
)


class Block(NamedTuple):
    """A piece of prose: one paragraph, one entry of a section, one comment."""

    file: Path
    line: int
    text: str
    lines: int
    opens: bool = False  # the first words that a reader meets: a docstring's, or an entry's


class Hit(NamedTuple):
    """A sentence that counts, and the phrase in it that matched a pattern."""

    file: Path
    line: int
    pattern: str
    phrase: str
    sentence: str


def _files(path: Path) -> Iterator[Path]:
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.suffix in (".py", ".md") and file.is_file():
            yield file


def blocks_of(file: Path) -> Iterator[Block]:
    """Yield the prose of a file."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".md":
        yield from _markdown(file, text)
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=True)
            if docstring:
                first = node.body[0].lineno
                yield from _docstring(file, first, docstring)
    yield from _comments(file, text)


def _docstring(file: Path, first: int, text: str) -> Iterator[Block]:
    paragraph: list[str] = []
    start = first
    is_code = False
    opens = True

    def flush() -> Iterator[Block]:
        if paragraph:
            yield Block(file, start, " ".join(paragraph), len(paragraph), opens)
        paragraph.clear()

    for number, line in enumerate(text.splitlines()):
        bare = line.strip()
        if bare.startswith("```") or bare == "::" or bare.startswith(".. "):
            is_code = bare.startswith("```") and not is_code
            continue
        if is_code or bare.startswith((">>>", "...")):
            continue
        entry = _ENTRY.match(bare) if line.startswith((" ", ":")) else None
        if not bare or _SECTIONS.match(bare):
            yield from flush()
        elif entry:
            yield from flush()
            start, opens = first + number, True
            paragraph.append(entry[1])
        else:
            if not paragraph:
                start, opens = first + number, number == 0
            paragraph.append(bare)
    yield from flush()


def _comments(file: Path, text: str) -> Iterator[Block]:
    group: list[str] = []
    start = last = -2
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return
    for token in tokens:
        if token.type != tokenize.COMMENT:
            continue
        bare = token.string.lstrip("#!").strip()
        if not bare or re.match(
            r"(noqa|type:|pragma|fmt:|pylint|mypy|ruff|-\*-|TODO\b|FIXME\b)", bare
        ):
            continue
        if re.search(r"[=(){}\[\]]\s*$|^\w+\(|^(?:from|import|return|def|if|for) .*[:)]?$", bare):
            continue  # commented-out code
        if (
            token.start[0] == last + 1
            and not text.splitlines()[token.start[0] - 1][: token.start[1]].strip()
        ):
            group.append(bare)
        else:
            if group:
                yield Block(file, start, " ".join(group), len(group))
            group, start = [bare], token.start[0]
        last = token.start[0]
    if group:
        yield Block(file, start, " ".join(group), len(group))


def _markdown(file: Path, text: str) -> Iterator[Block]:
    is_code = False
    paragraph: list[str] = []
    start = 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        bare = line.strip()
        if bare.startswith(("```", "~~~")):
            is_code = not is_code
            bare = ""
        if is_code or not bare or bare.startswith(("#", "|", "<", "!", "[")):
            if paragraph:
                yield Block(file, start, " ".join(paragraph), len(paragraph))
            paragraph = []
            if not is_code and bare.startswith("|"):
                yield Block(file, number, bare.strip("|"), 1)
            continue
        if not paragraph:
            start = number
        paragraph.append(re.sub(r"\]\([^)]*\)", "]", re.sub(r"^[-*\d.]+ ", "", bare)))


def hits_of(block: Block) -> Iterator[Hit]:
    """Yield the sentences of a block that count."""
    for index, sentence in enumerate(re.split(r"(?<=[.!?;])\s+(?=[A-Z`\"(])", block.text)):
        hit = _hit(block, sentence, is_opening=block.opens and not index)
        if hit:
            yield hit


def _hit(block: Block, sentence: str, *, is_opening: bool) -> Hit | None:
    for name, pattern in PATTERNS.items():
        match = pattern.search(sentence) if name != "fragment" or is_opening else None
        if match:
            return Hit(block.file, block.line, name, match[0].strip(), sentence)
    words = re.findall(r"[A-Za-z']+", re.sub(r"`[^`]*`|\"[^\"]*\"", " Code ", sentence))
    is_bare = len(words) > 1 and all(word.lower() in FUNCTION_WORDS for word in words)
    if is_bare and block.file.suffix != ".md" and sentence.endswith((".", ";", ":")):
        return Hit(block.file, block.line, "no-noun", sentence, sentence)
    return None


def count_riddles(path: Path) -> tuple[int, list[Hit]]:
    """Return the number of doc lines of a file or folder, and its riddling sentences."""
    lines, hits = 0, []
    for file in _files(path):
        for block in blocks_of(file):
            lines += block.lines
            hits += hits_of(block)
    return lines, hits
