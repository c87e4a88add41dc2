"""Sources of a model version: artifacts of a run, or uploaded files."""

from urllib.parse import unquote, urlsplit

from tests.support.azureml.artifact import RUN_ORIGIN, Artifacts
from tests.support.azureml.errors import tracking_error
from tests.support.http.messages import Response, match_path

_UPLOADED = r"/([^/]+)/([^/]+)/(.+)"
_RUN = r".*/experiments/[^/]+/runs/([^/]+)/artifacts(?:/(.+))?"


class SourceCheck:
    """Looks for the files of a model version before it is made."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def location(self, source: str) -> tuple[str, str, str] | None:
        """Return origin, container and folder of a source; None for an unknown form."""
        url = urlsplit(source)
        path = unquote(url.path)
        uploaded = match_path(_UPLOADED, path) if url.netloc == "artifacts" else None
        run = match_path(_RUN, path)
        if url.scheme != "azureml":
            return None
        if uploaded:
            return uploaded[1], uploaded[2], uploaded[3]
        return (RUN_ORIGIN, f"dcid.{run[1]}", run[2] or "") if run else None

    def read_files(self, source: str) -> dict[str, bytes]:
        """Return the bytes of a source's files by their paths below it."""
        location = self.location(source)
        return self._artifacts.read_folder(*location) if location else {}

    def problem(self, source: str) -> Response | None:
        """Return the refusal of a source; None for a source with files."""
        location = self.location(source)
        if location is None:
            return tracking_error(
                400, f"Model source '{source}' is not supported.", error_code="BAD_REQUEST"
            )
        if self._artifacts.has_folder(*location):
            return None
        return tracking_error(404, f"No artifacts were found at model source '{source}'.")
