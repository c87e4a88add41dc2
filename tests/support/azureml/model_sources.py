"""Sources of a model version: artifacts of a run, or uploaded files."""

from urllib.parse import unquote, urlsplit

from tests.support.azureml.artifact import Artifacts
from tests.support.azureml.errors import tracking_error
from tests.support.http.messages import Response, match_path

_UPLOADED = r"/([^/]+)/([^/]+)/(.+)"
_RUN = r".*/experiments/[^/]+/runs/([^/]+)/artifacts(?:/(.+))?"


class SourceCheck:
    """Looks for the files of a model version before it is made."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def problem(self, source: str) -> Response | None:
        """Return the refusal of a source; None for a source with files."""
        url = urlsplit(source)
        path = unquote(url.path)
        uploaded = match_path(_UPLOADED, path) if url.netloc == "artifacts" else None
        run = match_path(_RUN, path)
        if url.scheme != "azureml" or not (uploaded or run):
            return tracking_error(
                400, f"Model source '{source}' is not supported.", error_code="BAD_REQUEST"
            )
        if uploaded:
            has_files = self._artifacts.has_folder(uploaded[1], uploaded[2], uploaded[3])
        else:
            assert run
            has_files = self._artifacts.run_has_folder(run[1], run[2] or "")
        if has_files:
            return None
        return tracking_error(404, f"No artifacts were found at model source '{source}'.")
