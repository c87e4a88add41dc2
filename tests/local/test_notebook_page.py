"""The page of a notebook: its content, and a browser that opens it without any network."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from html import unescape
from pathlib import Path

import pytest

from dbx_aml._common.errors import ArgumentError, NotebookError
from dbx_aml.local.notebook.page import markdown
from dbx_aml.local.notebook.run import run_notebook
from tests.support.notebook import write_notebook

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CELLS = [
    """
    # MAGIC %md
    # MAGIC # A title
    # MAGIC | widget | meaning |
    # MAGIC |---|---|
    # MAGIC | `n` | a *number* |
    """,
    "# MAGIC %run ./names",
    "dbutils.widgets.text('n', '1')\nprint('a < b', 1 + 1)\nprint('10%\\r100%')",
    "# DBTITLE 1,Some rows\nimport pandas as pd\n"
    "display(pd.DataFrame({'word': ['<b>', None], 'n': [1, 2]}))",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
    "# MAGIC %sh echo from the shell",
    "displayHTML('<h3 id=x>HTML</h3><script>document.title = 1</script>')",
    "import sys; print('careful', file=sys.stderr)",
    "dbutils.notebook.run('./child', 0)",
    "dbutils.notebook.exit('{\"rows\": 3}')",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_notebook(folder / "names.py", "# MAGIC %md\n# MAGIC ## Of names", "print('names set')")
    write_notebook(folder / "child.py", "print('child ran')")
    path = write_notebook(folder / "main.py", *CELLS)
    run_notebook(path, {"n": "7 & 8"}, spark=None, html=folder / "out" / "page.html")
    return (folder / "out" / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "html",
    [
        "<h1>A title</h1>",
        "<td>a <em>number</em></td>",
        "<dt>n</dt><dd>7 &amp; 8</dd>",
        '<pre class="text">a &lt; b 2\n100%</pre>',
        "<b>Some rows</b>",
        '<th class="number">n<small>int64</small></th>',
        '<td>&lt;b&gt;</td><td class="number">1</td>',
        '<td><i>null</i></td><td class="number">2</td>',
        "<figcaption>2 rows</figcaption>",
        '<img src="data:image/png;base64,iVBOR',
        '<pre class="text">from the shell</pre>',
        '<pre class="text stderr">careful</pre>',
        '<span class="nb">print</span>',
        "<summary>2 cells of names.py, ",
        "<h2>Of names</h2>",
        "<summary>1 cell of child.py, ",
        '<pre class="text">child ran</pre>',
        '<span class="state succeeded">succeeded</span>',
        "<h2>Exit value</h2><pre>{\n  &#34;rows&#34;: 3\n}</pre>",
    ],
)
def test_a_page_has_each_cell_with_its_output(page: str, html: str) -> None:
    assert html in page


def test_after_an_early_exit_the_page_has_no_later_cells(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "main.py", "dbutils.notebook.exit()", "print('never')")

    run_notebook(path, spark=None, html=tmp_path / "page.html")

    assert "never" not in (tmp_path / "page.html").read_text()


def test_outputs_of_included_cells_are_outputs_of_the_run_cell_too(page: str) -> None:
    assert page.count("names set</pre>") == 2
    assert page.count("child ran</pre>") == 1


def test_html_of_a_cell_is_in_a_frame_without_access_to_page_and_network(page) -> None:
    frame = re.search(r'<iframe sandbox="allow-scripts" srcdoc="([^"]*)"', page)

    assert frame is not None
    assert "<h3 id=x>HTML</h3>" in unescape(frame[1])
    assert "<h3" not in page
    assert "default-src 'none'; img-src data:" in page


def test_a_page_has_no_link_to_another_file_or_host(page: str) -> None:
    assert re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!data:|#)[\w/:]+', page) == []


def test_the_page_of_a_failed_notebook_has_the_error_and_all_cells(
    tmp_path: Path,
) -> None:
    path = write_notebook(tmp_path / "main.py", "x = 1", "y = x\nz = [][x]", "print('never')")

    with pytest.raises(NotebookError):
        run_notebook(path, spark=None, html=tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert '<span class="state failed">failed</span>' in page
    assert '<a href="#main-2">cell 2 of main.py, line 7</a> IndexError: list index out' in page
    assert '<section class="cell failed" id="main-2">' in page
    assert re.search(
        r'<span class="hll"><span class="linenos">7</span><span class="n">z</span>', page
    )
    assert "<strong>IndexError</strong> in cell 2 of main.py, line 7" in page
    assert "<pre>list index out of range</pre>" in page
    trace = re.search(r"<summary>Traceback</summary><pre>(.*?)</pre>", page, re.DOTALL)
    assert trace is not None
    assert "z = [][x]" in trace[1]
    assert "IPython" not in trace[1]
    assert '<span class="took">not run</span>' in page


def test_an_error_in_an_included_notebook_unfolds_its_cells(tmp_path: Path) -> None:
    write_notebook(tmp_path / "names.py", "1 / 0")
    path = write_notebook(tmp_path / "main.py", "# MAGIC %run ./names")

    with pytest.raises(NotebookError):
        run_notebook(path, spark=None, html=tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert "<details open><summary>1 cell of names.py" in page
    assert '<a href="#names-1">cell 1 of names.py, line 2</a>' in page


@pytest.fixture
def proxy():
    """A proxy that records the first line of each request and closes the connection."""
    requests: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def record_requests() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                requests.append(client.recv(4096).split(b"\r\n")[0].decode("latin-1"))

    thread = threading.Thread(target=record_requests, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}", requests
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.slow
def test_a_browser_opens_a_page_without_a_request(tmp_path: Path, proxy) -> None:
    address, requests = proxy
    path = write_notebook(
        tmp_path / "main.py",
        *CELLS[:1],
        "# MAGIC %md\n# MAGIC ![](http://picture.test/of-markdown.png)",
        "displayHTML(\"<p>in a frame</p><img src='http://picture.test/of-html.png'>"
        "<script>fetch('http://picture.test/by-script')</script>\")",
    )
    run_notebook(path, spark=None, html=tmp_path / "page.html")

    def dump_dom(page: Path) -> str:
        done = subprocess.run(
            [
                str(CHROMIUM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync", "--virtual-time-budget=500"),
                f"--user-data-dir={tmp_path / 'browser'}",
                f"--proxy-server={address}",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    # The browser may print the page before the frame has sent its height.
    heights = (
        re.search(r'<h1>A title</h1>.* style="height: (\d+)px;?"', dom, re.DOTALL)
        for dom in (dump_dom(tmp_path / "page.html") for _ in range(20))
    )
    height = next(filter(None, heights), None)
    assert height is not None
    assert int(height[1]) > 20
    assert [line for line in requests if "picture.test" in line] == []
    # The proxy does record the requests of a page without a content security policy.
    plain = tmp_path / "plain.html"
    plain.write_text("<img src='http://picture.test/plain.png'>")
    dump_dom(plain)
    assert [line for line in requests if "picture.test" in line] != []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>1</script>", "&lt;script&gt;1&lt;/script&gt;"),
        ("<img src=x onerror=1>", "&lt;img src=x onerror=1&gt;"),
        ("[a](https://a.example)", '<a href="https://a.example">a</a>'),
        ("[a](mailto:a@b.example)", '<a href="mailto:a@b.example">a</a>'),
        ("[a](#x)", '<a href="#x">a</a>'),
        ("![a](data:image/png;base64,iVBOR)", '<img src="data:image/png;base64,iVBOR" alt="a" />'),
        ("[a](javascript:1)", "[a](javascript:1)"),
        ("[a](&#106;avascript:1)", "[a](javascript:1)"),
        ("<javascript:1>", "&lt;javascript:1&gt;"),
        ("[a](data:text/html,x)", "[a](data:text/html,x)"),
        ("[a](//a.example)", "[a](//a.example)"),
        ("[a](file:///etc/passwd)", "[a](file:///etc/passwd)"),
    ],
)
def test_markdown_has_no_html_and_links_only_to_pages_mail_and_anchors(
    text: str, html: str
) -> None:
    assert markdown(text) == f"<p>{html}</p>\n"


def test_the_policy_of_a_page_allows_no_form_and_no_other_base(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].split("; ")[-2:] == ["base-uri 'none'", "form-action 'none'"]


def test_no_part_of_an_output_has_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "s3cret")
    path = write_notebook(
        tmp_path / "main.py",
        "import pandas as pd\nkey = dbutils.secrets.get('ml', 'key')\n"
        "display(pd.DataFrame({key: [key], 'b': [1]}))",
        "displayHTML(key)",
        "print(key)",
        "dbutils.notebook.exit(key)",
    )
    run_notebook(path, spark=None, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("[REDACTED]") == 5
    assert "s3cret" not in page + capsys.readouterr().out


@pytest.mark.parametrize(
    "form", ["print(key)", "key", "print(json.dumps([key]))", "raise KeyError(key)"]
)
def test_a_secret_of_several_lines_is_redacted_in_each_form_in_which_code_shows_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", '-- BEGIN --\nit\'s "s3cret"\n')
    path = write_notebook(
        tmp_path / "main.py", "import json\nkey = dbutils.secrets.get('ml', 'key')", form
    )
    result = run_notebook(path, spark=None, html=tmp_path / "page.html", check=False)
    page = (tmp_path / "page.html").read_text()
    assert "[REDACTED]" in page
    assert "s3cret" not in page + capsys.readouterr().out + str(result.error)


def test_a_secret_of_the_environment_is_redacted_that_the_notebook_has_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBX_AML_SECRET_ML_KEY", "correct-horse")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "battery-staple")
    path = write_notebook(tmp_path / "main.py", "import os\nprint(dict(os.environ))")
    run_notebook(path, spark=None, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "DBX_AML_SECRET_ML_KEY" in page
    assert "correct-horse" not in page
    assert "battery-staple" not in page


def test_a_page_has_every_output_that_ipython_can_show(tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "main.py",
        """
        class Picture:
            def _repr_png_(self):
                return b"\\x89PNG"

        Picture()
        """,
        "from IPython.display import display as show\n"
        "show({'application/json': {'a': {1, 2}}}, raw=True)",
        "print('half \\ud83d')\ndbutils.notebook.exit('\\ud83d')",
    )
    result = run_notebook(path, spark=None, html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert "(application/json)" in page
    assert "half \\ud83d" in page
    assert result.exit_value == "\\ud83d"


def test_a_page_replaces_no_notebook_and_nothing_runs(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "train.py", "open('ran', 'w')")
    (tmp_path / "train.ipynb").write_text('{"cells": []}')
    for page in (tmp_path / "train.html", path, tmp_path / "page.ipynb"):
        with pytest.raises(ArgumentError, match="page must not replace a notebook: got"):
            run_notebook(path, spark=None, html=page)
    assert (tmp_path / "train.ipynb").read_text() == '{"cells": []}'
    assert not (tmp_path / "ran").exists()
    for _ in range(2):
        run_notebook(path, spark=None, html=tmp_path / "page.html")
