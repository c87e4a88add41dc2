"""The process of a notebook: IPython's shell, as on a cluster, with `dbutils`, SQL and shell cells.

`run` starts the process and sends it one cell after the other. The process answers with texts,
outputs, and at the end of a cell with the error or the exit value.
"""

from __future__ import annotations

import atexit
import base64
import builtins
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display as display_value
from traitlets import Type
from traitlets.config import Config

from dbx_aml._common.errors import NotebookError
from dbx_aml._common.text import sql_literal
from dbx_aml.local.notebook.cells import redact_secrets
from dbx_aml.local.notebook.databricks_paths import map_python_paths
from dbx_aml.local.notebook.dbutils_stub import (
    NoSparkContext,
    Notebook,
    NotebookExit,
    PythonRestart,
    Secrets,
    make_dbutils,
)
from dbx_aml.local.notebook.namespace import pack_namespace
from dbx_aml.local.notebook.process import ShellSettings
from dbx_aml.local.notebook.run import NotebookRun
from dbx_aml.local.notebook.shared_spark import attach_spark
from dbx_aml.local.notebook.source import Cell, read_notebook
from dbx_aml.local.notebook.tables import table_formats
from dbx_aml.local.notebook.widgets import Widgets
from dbx_aml.local.spark import is_connect

# How IPython runs a cell of a kind: as Python, or by a magic of this module.
_CELL_MAGICS = {"python": "", "sql": "%%sql\n", "shell": "%%sh\n"}
_DESCRIPTORS = {"stdout": 1, "stderr": 2}
# A string of Spark SQL, in group 1; a comment or a quoted name, which may have an apostrophe.
_SQL_LITERAL = re.compile(
    r"""(\b[rR]'[^']*'|\b[rR]"[^"]*"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`[^`]*`|--[^\n]*|/\*.*?\*/""",
    re.DOTALL,
)
_IPYTHON = Config(
    HistoryManager={"enabled": False},
    InlineBackend={"figure_formats": {"retina"}},
)


def serve(descriptor: int, libraries: Sequence[str]) -> None:
    """Run the cells that arrive on a connection, until the other end closes it.

    Environment variables and settings arrive first. A None instead of a cell requests the
    variables.

    Args:
        descriptor: File descriptor of the connection.
        libraries: Modules to import before the settings arrive.
    """
    connection = Connection(descriptor)
    # Until the settings arrive, Ctrl-C is for the notebook of another process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for library in libraries:
        import_module(library)
    try:
        environment, settings = connection.recv()
    except EOFError:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(settings.path.parent)
    session = _Session(connection, settings)
    connection.send("ready")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request is None:
            session.send_variables()
        else:
            session.run_cell(*request)


class _FileCompiler(CachingCompiler):
    """Compiles a cell with the name and the line numbers of the notebook's file."""

    file = ""
    line = 1

    def cache(self, *args: Any, **kwargs: Any) -> str:
        return self.file

    def ast_parse(self, source: str, *args: Any, **kwargs: Any) -> Any:
        return super().ast_parse("\n" * (self.line - 1) + source, *args, **kwargs)


class _Hook(DisplayHook):
    """Sends the value of a cell's last expression."""

    shell: Any

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.send_output("execute_result", format_dict, md_dict)

    def finish_displayhook(self) -> None:
        self._is_active = False


class _Publisher(DisplayPublisher):
    """Sends what a cell displays."""

    shell: Any

    def publish(self, data: Any, metadata: Any = None, *args: Any, **kwargs: Any) -> None:
        self.shell.send_output("display_data", data, metadata)

    def clear_output(self, wait: bool = False) -> None:
        pass


class _Shell(InteractiveShell):
    """IPython's shell; `run_cell` returns an error, which the session sends."""

    compiler_class = Type(_FileCompiler)
    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)

    def _send_error(self, *args: Any, **kwargs: Any) -> None:
        pass

    showtraceback = showsyntaxerror = showindentationerror = show_usage_error = _send_error
    _format_exception_for_storage = _send_error  # renders the source of all frames: 0.1 s


class _Stream(io.TextIOBase):
    """A stream that sends its text; not a terminal, so nothing moves the cursor."""

    encoding = "utf-8"

    def __init__(self, send: Any, name: str) -> None:
        self._send = send
        self._name = name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._send("text", self._name, text)
        return len(text)


class _Session:
    """The state that the cells of a notebook share.

    Args:
        connection: Connection to the process of the caller.
        settings: Settings of this process.
    """

    def __init__(self, connection: Connection, settings: ShellSettings) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._secrets: list[str] = []
        self._settings = settings
        self._widgets = Widgets(settings.parameters, settings.widgets)
        sys.stdout, sys.stderr = _Stream(self._send, "stdout"), _Stream(self._send, "stderr")
        os.register_at_fork(after_in_child=self._leave_connection)
        # A process that starts must not take a notebook of this folder for a module of Python.
        self._search_path = tuple(sys.path)
        sys.path.insert(0, str(settings.path.parent))
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        map_python_paths(settings.files)
        # IPython splits a cell at U+2028, too, and warns; the cell runs unchanged.
        warnings.filterwarnings("ignore", message="`make_tokens_by_line` received")
        self._shell = self._make_shell()

    def _make_shell(self) -> Any:
        dbutils = make_dbutils(
            fs=self._settings.files,
            notebook=Notebook(self._run_notebook),
            secrets=Secrets(self._add_secret),
            widgets=self._widgets,
        )
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        shell: Any = _Shell.instance(config=_IPYTHON, ipython_dir=folder)
        shell.send_output = self._send_output
        shell.compile.file = str(self._settings.path)
        shell.register_magic_function(self._sql, "cell", "sql")
        shell.register_magic_function(self._shell_script, "cell", "sh")
        shell.register_magic_function(self._pip, "line", "pip")
        names = {
            "dbutils": dbutils,
            "display": self._display,
            "displayHTML": self._display_html,
            "getArgument": self._widgets.getArgument,
            "open": builtins.open,  # IPython's own does not know the paths of a cluster
        }
        names["spark"] = spark = (
            None if self._settings.spark is None else attach_spark(self._settings.spark)
        )
        if spark is not None:
            names["sc"] = NoSparkContext() if is_connect(spark) else spark.sparkContext
        _add_display_to_data_frames(self._display)
        shell.push(names, interactive=False)
        self._given_names = set(shell.user_ns)
        return shell

    def run_cell(self, cell: Cell, overrides: Mapping[str, str]) -> None:
        """Run a cell and send how it ended."""
        self._widgets.overrides = overrides
        self._shell.compile.file = str(cell.notebook)
        self._shell.compile.line = cell.line
        source = _CELL_MAGICS[cell.kind] + cell.source
        result = self._shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        if error is None:
            self._send("end", "", None)
        elif isinstance(error, NotebookExit):
            self._send("end", "exit", error.value)
        elif isinstance(error, PythonRestart):
            self._send("end", "restart", replace(self._settings, widgets=self._widgets.values))
        else:
            self._send("end", "failure", _failure(error, cell))

    def send_variables(self) -> None:
        """Send the variables that the cells have defined."""
        names = self._shell.user_ns.items()
        self._send(
            "variables",
            pack_namespace({name: value for name, value in names if name not in self._given_names}),
        )

    def _send(self, kind: str, *values: Any) -> None:
        with self._lock:
            if not self._connection.closed:
                self._connection.send((kind, *values))
            elif kind == "text":
                stream, text = values
                os.write(_DESCRIPTORS[stream], redact_secrets(text, self._secrets).encode())

    def _leave_connection(self) -> None:
        """Let a process that a cell has forked print to the terminal.

        Two processes would mix their messages. And the caller sees the end of this process only
        when no other one holds the connection.
        """
        self._lock = threading.Lock()  # another thread may have held it
        self._connection.close()

    def _send_output(self, kind: str, data: Any, metadata: Any) -> None:
        data = {mime_type: _storable(value) for mime_type, value in data.items()}
        data.setdefault("text/plain", f"({', '.join(data)})")
        output = {"output_type": kind, "data": data, "metadata": metadata or {}}
        if kind == "execute_result":
            output["execution_count"] = self._shell.execution_count - 1
        self._send("output", output)

    def _add_secret(self, secret: str) -> None:
        self._secrets.append(secret)
        self._send("secret", secret)

    def _display(self, value: Any, *args: Any, **kwargs: Any) -> None:
        """Show a data frame, a figure or any other value."""
        formats = table_formats(value)
        if formats is not None:
            self._send_output("display_data", formats, {"dbx_aml": "table"})
            return
        display_value(value)
        if hasattr(value, "savefig"):
            from matplotlib import pyplot as plt

            plt.close(value)  # the end of the cell would show the figure again

    def _display_html(self, html: str) -> None:
        formats = {"text/html": html, "text/plain": "(HTML, which a page shows)"}
        self._send_output("display_data", formats, {})

    def _run_notebook(self, name: str, timeout_s: float, arguments: Mapping[str, str]) -> str:
        path = self._settings.files.notebook(name, self._settings.path)
        Widgets(arguments, {})  # refuses arguments that are no texts
        run = NotebookRun(
            read_notebook(path, self._settings.files),
            write=lambda *text: self._send("terminal", *text),
            on_cell=lambda run: self._send("started_cell", run),
            secrets=self._secrets,
            search_path=self._search_path,
        )
        settings = replace(
            self._settings,
            path=path,
            parameters=dict(arguments),
            widgets={},
            keep_namespace=False,
        )
        try:
            return run.execute(settings, timeout_s) or ""
        finally:
            for secret in run.secrets - set(self._secrets):
                self._add_secret(secret)
            self._send("started_notebook", run.runs)

    def _sql(self, line: str, cell: str) -> None:
        """Execute the statements; show the result of the last one."""
        names = self._shell.user_ns
        frame = None
        for statement in _split_statements(cell):
            if re.match(r"\s*(create|remove)\s+widget\b", statement, re.IGNORECASE):
                raise NotebookError(
                    "widgets must be made in Python here: got SQL; use dbutils.widgets"
                )
            frame = names["spark"].sql(_substitute_widgets(statement, self._widgets.getAll()))
        if frame is not None:
            names["_sqldf"] = frame
            self._display(frame)

    def _shell_script(self, line: str, cell: str) -> None:
        """Run a script; an exit status fails the cell only with `%sh -e`."""
        before_flag, flag, script = cell.partition("-e")
        is_strict = not before_flag.strip() and flag and (not script or script[0].isspace())
        code = _run_program(["bash", "-c", script if is_strict else cell])
        if code and is_strict:
            raise NotebookError(f"shell script must end with status 0: got {code}")
        if code:
            sys.stderr.write(f"exit status {code}\n")

    def _pip(self, line: str) -> None:
        """Run a pip command."""
        command = f"pip {line}".strip()
        if not self._settings.run_pip_cells:
            sys.stdout.write(f"not run here: {command}\n")
            return
        arguments = shlex.split(line, comments=True)
        code = _run_program([sys.executable, "-m", "pip", *arguments])
        if code:
            raise NotebookError(f"'{command}' must end with status 0: got {code}")


def _add_display_to_data_frames(display: Any) -> None:
    from pyspark.sql import DataFrame

    DataFrame.display = lambda frame, *args, **kwargs: display(frame)  # type: ignore[attr-defined]


def _storable(value: Any) -> Any:
    """Return an output in the form of an .ipynb file: texts, bytes in base64, or JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str) else json.loads(json.dumps(value, default=str))


def _failure(error: BaseException, cell: Cell) -> dict[str, Any]:
    file = str(cell.notebook)
    trace = traceback.TracebackException.from_exception(error)
    frames = [index for index, frame in enumerate(trace.stack) if frame.filename == file]
    line = trace.stack[frames[-1]].lineno if frames else None
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename == file:
        line, message, frames = error.lineno, error.msg, []
    # The frames before the notebook's first one are IPython's.
    del trace.stack[: frames[0] if frames else len(trace.stack)]
    return {
        "ename": type(error).__name__,
        "evalue": message.strip(),
        "line": line,
        "traceback": "".join(trace.format()).split("\n"),
    }


def _run_program(command: list[str]) -> int:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as program:
        for line in program.stdout or ():
            sys.stdout.write(line)
    return program.returncode


def _mask_literals(sql: str) -> tuple[str, list[str]]:
    """Return SQL with a plain string for each string literal, and the literals.

    sqlparse knows no backslash in front of a backslash: for it, a string that ends so goes on.
    """
    literals: list[str] = []

    def mask(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        literals.append(match[0])
        return f"'__literal_{len(literals) - 1}'"

    return _SQL_LITERAL.sub(mask, sql), literals


def _unmask_literals(sql: str, literals: Sequence[str]) -> str:
    return re.sub(r"'__literal_(\d+)'", lambda match: literals[int(match[1])], sql)


def _split_statements(cell: str) -> list[str]:
    """Return the statements of a cell, without those that are only comments."""
    import sqlparse
    from sqlparse.lexer import tokenize
    from sqlparse.tokens import Comment, Whitespace

    masked, literals = _mask_literals(cell)
    return [
        _unmask_literals(statement, literals)
        for statement in sqlparse.split(masked, strip_semicolon=True)
        if not all(kind in Comment or kind in Whitespace for kind, _ in tokenize(statement))
    ]


def _substitute_widgets(statement: str, widgets: Mapping[str, str]) -> str:
    """Return SQL with the values of widgets: `:name` as a string literal, `${name}` as text.

    The arguments of `spark.sql` cannot be used: with Delta, Spark 4.1 loses them.
    """
    from sqlparse.lexer import tokenize
    from sqlparse.tokens import Name

    text = re.sub(r"\$\{(\w+)\}", lambda match: widgets.get(match[1], match[0]), statement)
    masked, literals = _mask_literals(text)
    tokens = [
        (token, kind is Name.Placeholder and token[1:] in widgets)
        for kind, token in tokenize(masked)
    ]
    return "".join(
        sql_literal(widgets[token[1:]]) if is_widget else _unmask_literals(token, literals)
        for token, is_widget in tokens
    )
