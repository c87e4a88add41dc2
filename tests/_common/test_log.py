"""Loggers whose records hold no secret."""

import logging
import re
from pathlib import Path

import pytest

import dbx_aml
from dbx_aml._common.log import PrintableFormatter, get_logger

PACKAGE = Path(dbx_aml.__file__).parent
URI = "https://ana:s3cret@mlflow.example"


def test_a_record_has_no_secret_in_message_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = get_logger("tests.log")
    try:
        raise ValueError(f"no answer of {URI}")
    except ValueError as error:
        log.warning("failed: %s, 100%%", error, exc_info=True)
    (record,) = caplog.records
    assert "s3cret" not in str(vars(record))
    first, *_, last = record.getMessage().splitlines()
    assert first == "failed: no answer of https://***@mlflow.example, 100%"
    assert last == "ValueError: no answer of https://***@mlflow.example"


def test_the_formatter_shows_control_codes_of_every_library() -> None:
    record = logging.makeLogRecord({"msg": "a\x1b[2Jb %s", "args": (URI,)})
    text = PrintableFormatter("%(message)s").format(record)
    assert text == r"a\x1b[2Jb https://***@mlflow.example"


def test_every_module_of_the_package_has_such_a_logger() -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
    assert sum("get_logger(__name__)" in text for text in texts.values()) > 10
    wrong = [file for file, text in texts.items() if re.search(r"getLogger\(__name__\)", text)]
    assert wrong == []
