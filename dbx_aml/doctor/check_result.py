"""The result of one check: its status, a message and the fix; never a secret."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dbx_aml._common.redact import redact
from dbx_aml._common.text import one_line

CheckStatus = Literal["failed", "warning", "ok", "skipped"]
# Worst first.
STATUSES: tuple[CheckStatus, ...] = ("failed", "warning", "ok", "skipped")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How one check went.

    Args:
        check: Name of the check, for example "token".
        status: "failed", "warning", "ok" or "skipped".
        seconds: Duration of the check.
        message: Values that were read and their meaning; for a skipped check the reason.
        fix: Command to type, setting to change or permission to ask for; "" if the check is ok.
    """

    check: str = ""
    status: CheckStatus
    seconds: float = 0.0
    message: str
    fix: str = ""

    def without_secrets(self) -> CheckResult:
        """Return the result with every secret in its texts replaced by stars."""
        # Other libraries' error messages may repeat a secret.
        return replace(self, message=redact(self.message), fix=redact(self.fix))


class SkippedError(Exception):
    """A check does not apply, or another check failed to get a value that it needs."""


def ok(message: str) -> CheckResult:
    """Return the result of a check that found everything in order."""
    return CheckResult(status="ok", message=message)


def warning(message: str, fix: str) -> CheckResult:
    """Return the result of a check that found something that may fail later."""
    return CheckResult(status="warning", message=message, fix=fix)


def failed(message: str, fix: str) -> CheckResult:
    """Return the result of a check that found something that does not work."""
    return CheckResult(status="failed", message=message, fix=fix)


def failed_with(error: Exception) -> CheckResult:
    """Return the result for an error of this package: its message ends with the next step."""
    message, _, fix = one_line(error).rpartition("; ")
    return failed(message or fix, fix if message else "")
