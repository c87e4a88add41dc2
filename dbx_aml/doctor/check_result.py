"""What a check found: its state, in words, and what to do; never a secret."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from dbx_aml.azure.identity import scrubbed
from dbx_aml.tracking.active_uris import without_login

FAILED, WARNING, OK, SKIPPED = "failed", "warning", "ok", "skipped"
# Worst first.
STATES = (FAILED, WARNING, OK, SKIPPED)
# Ours hold references, and files are no secrets.
_SECRET_NAME = re.compile(
    r"(?!DBX_AML_)(?!.*_(FILE|PATH)$).*(SECRET|TOKEN|PASSWORD|_KEY$|IDENTITY_HEADER)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Args:
        state: "ok", "warning", "failed" or "skipped".
        said: What is there and what that means; of a skipped one why.
        fix: What to type, to set or to ask for; "" where there is nothing to do.
    """

    state: str
    said: str
    fix: str = ""


class SkippedError(Exception):
    """A check has nothing to look at, or needs what another one failed to get; says why."""


def ok(said: str) -> Finding:
    """Return that all is well."""
    return Finding(state=OK, said=said)


def warning(said: str, fix: str) -> Finding:
    """Return that something may go wrong later."""
    return Finding(state=WARNING, said=said, fix=fix)


def failed(said: str, fix: str) -> Finding:
    """Return that something does not work."""
    return Finding(state=FAILED, said=said, fix=fix)


def failed_by(error: Exception) -> Finding:
    """Return the finding of one of our own errors, whose message ends with the next step."""
    said, _, fix = " ".join(str(error).split()).rpartition("; ")
    return failed(said or fix, fix if said else "")


def without_secrets(text: str) -> str:
    """Return the text without the tokens, the passwords in URLs and the secrets of variables.

    No check puts one there. This is for what other libraries' errors repeat.
    """
    known = [value for name, value in os.environ.items() if _SECRET_NAME.match(name)]
    return scrubbed(without_login(text), known)
