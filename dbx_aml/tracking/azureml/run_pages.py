"""Pages of runs from two searches, merged in the order that MLflow asks for.

Azure ML cannot compare what is in the overflow of a run. So one search has the whole filter and is
for runs without an overflow. A second search is for runs with an overflow; this package decides
its conditions on parameters and tags.
"""

import base64
import json
from collections.abc import Callable

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.search_utils import SearchUtils

from dbx_aml._common.daemon_threads import DaemonThreadPool

# Token of a page, "" for the first page, and the number of runs of the page that were returned.
Position = tuple[str, int]


class RunSearch:
    """The runs of one search, read page by page.

    Args:
        fetch_page: Function that returns the page of a token, and the token of the next page.
        read_run: Function that returns a run as the caller sees it; None to leave the run out.
        position: Place in the pages where the search begins; None for a search without runs.
    """

    def __init__(
        self,
        fetch_page: Callable[[str | None], tuple[list[Run], str | None]],
        read_run: Callable[[Run], Run | None],
        position: Position | None,
    ) -> None:
        self.position = position
        self._fetch_page = fetch_page
        self._read_run = read_run
        self._page: tuple[list[Run], str | None] | None = None
        self._run: Run | None = None

    def read_run(self) -> Run | None:
        """Return the run at the position, the same until `skip_run`; None after the last run."""
        while self.position is not None and self._run is None:
            token, count = self.position
            if self._page is None:
                self._page = self._fetch_page(token or None)
            runs, _ = self._page
            if count < len(runs):
                self._run = self._read_run(runs[count])
            if self._run is None:
                self._move(self._page, token, count + (count < len(runs)))
        return self._run

    def skip_run(self) -> None:
        """Move behind the run that `read_run` has returned."""
        self._run = None
        if self.position is not None and self._page is not None:
            token, count = self.position
            self._move(self._page, token, count + 1)

    def _move(self, page: tuple[list[Run], str | None], token: str, count: int) -> None:
        runs, next_token = page
        if count < len(runs):
            self.position = (token, count)
            return
        # A page with another `max_results` may have fewer runs than were returned before.
        self.position = (next_token, count - len(runs)) if next_token else None
        self._page = None


def merge_page(
    searches: list[RunSearch], max_results: int, order_by: list[str] | None
) -> tuple[list[Run], str | None]:
    """Return a page of the runs of all searches, and the token of the next page."""
    runs: list[Run] = []
    with DaemonThreadPool(len(searches)) as pool:
        # The first pages are read at the same time, so that two searches take as long as one.
        list(pool.map(RunSearch.read_run, searches))
    while len(runs) < max_results:
        search_of_run = {run: search for search in searches if (run := search.read_run())}
        if not search_of_run:
            return runs, None
        run = SearchUtils.sort(search_of_run, order_by)[0]
        runs.append(run)
        search_of_run[run].skip_run()
    positions = [search.position for search in searches]
    if not any(positions):
        return runs, None
    return runs, base64.b64encode(json.dumps(positions).encode()).decode()


def parse_positions(page_token: str | None, count: int) -> list[Position | None]:
    """Return the positions in a page token of `merge_page`; the begin of each search without one.

    Args:
        page_token: Token of a page.
        count: Number of searches.
    """
    if not page_token:
        return [("", 0)] * count
    try:
        positions = json.loads(base64.b64decode(page_token))
        if len(positions) != count:
            raise ValueError
        return [position and (str(position[0]), int(position[1])) for position in positions]
    except (ValueError, TypeError, LookupError):
        raise MlflowException(
            f"page token must be of the same search: got {page_token[:80]!r}; "
            "begin the search without a token",
            INVALID_PARAMETER_VALUE,
        ) from None
