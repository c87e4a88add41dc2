"""Values that several checks share."""

import time
from threading import Event

import pytest

from dbx_aml import Link
from dbx_aml._common.errors import LinkError
from dbx_aml.doctor.check_result import SkippedError
from dbx_aml.doctor.checks import CheckContext


def test_a_shared_value_is_requested_once() -> None:
    context = CheckContext(link=Link(), deadline=time.monotonic() + 5)
    requests = []
    for _ in range(2):
        shared_value = context.shared_value("token", lambda: requests.append("token") or 7)
        assert shared_value.get() == shared_value.get_or_skip() == 7
    assert requests == ["token"]


def test_a_check_is_skipped_when_another_check_failed_to_get_its_value() -> None:
    def refuse() -> str:
        raise LinkError("refused")

    context = CheckContext(link=Link(), deadline=time.monotonic() + 5)
    shared_value = context.shared_value("token", refuse)
    with pytest.raises(SkippedError, match="'token'"):
        shared_value.get_or_skip()
    with pytest.raises(LinkError, match="refused"):
        shared_value.get()


def test_a_check_is_skipped_when_its_value_does_not_come_in_time() -> None:
    context = CheckContext(link=Link(), deadline=time.monotonic() + 0.3)
    never = Event()
    with pytest.raises(SkippedError, match="'slow'"):
        context.shared_value("slow", never.wait).get_or_skip()
    never.set()
