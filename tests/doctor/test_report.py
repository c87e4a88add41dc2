"""The report: worst first, as text, HTML and a dictionary."""

from dbx_aml.doctor.check_result import CheckResult
from dbx_aml.doctor.report import DoctorReport

REPORT = DoctorReport(
    [
        CheckResult(check="a", status="skipped", message="<a>"),
        CheckResult(check="b", status="ok", message="<b>"),
        CheckResult(check="c", status="failed", seconds=1.25, message="<c>", fix="type this"),
        CheckResult(check="d", status="warning", message="<d>"),
        CheckResult(check="e", status="ok", message="<e>"),
    ]
)


def test_the_worst_result_is_first() -> None:
    assert [result.check for result in REPORT.results] == ["c", "d", "b", "e", "a"]
    assert [result.check for result in REPORT.failed] == ["c"]
    assert REPORT.summary == "1 failed, 1 warning, 2 ok, 1 skipped"


def test_text_and_html_have_message_and_fix() -> None:
    lines = str(REPORT).splitlines()
    assert lines[0].split() == ["failed", "c:", "<c>"]
    assert "→ type this" in lines[1]
    html = REPORT._repr_html_()
    assert "&lt;c&gt;" in html and "→ type this" in html


def test_the_dictionary_has_every_check() -> None:
    content = REPORT.to_dict()
    assert content["ok"] is False
    assert content["checks"][0] == {
        "check": "c", "status": "failed", "seconds": 1.25, "message": "<c>", "fix": "type this",
    }  # fmt: skip
