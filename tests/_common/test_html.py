"""Tables in HTML."""

from dbx_aml._common.html import StyledCell, html_table


def test_without_columns_the_first_cell_heads_its_row_and_urls_are_links() -> None:
    html = html_table([("studio", "https://ml.azure.com/?a=1&b=2"), ("mode", "<dual>")])
    assert html.count("<th ") == 2
    assert '<a href="https://ml.azure.com/?a=1&amp;b=2">' in html
    assert "&lt;dual&gt;" in html


def test_with_columns_the_first_row_has_their_names_and_a_cell_may_have_a_style() -> None:
    html = html_table([("disk", StyledCell("failed", "color: red"))], ("check", "result"))
    assert html.count("<tr>") == html.count("<th ") == 2
    assert "color: red" in html


def test_a_cell_has_no_secret() -> None:
    html = html_table([("uri", "https://ana:s3cret@h.example"), ("b", StyledCell("?sig=abc", ""))])
    assert "s3cret" not in html
    assert "https://***@h.example" in html
    assert "?sig=***" in html
