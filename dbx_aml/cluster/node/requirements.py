"""The list of the packages that a node gets: exact versions and hashes, resolved at the release."""

import re
from dataclasses import dataclass

from dbx_aml._common.errors import ClusterError

PACKAGE = "dbx-aml"
PLUGIN = "azureml-mlflow"
REQUIREMENTS_FILE = "requirements.txt"
_HASH_LINE = re.compile(
    r"(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)==(?P<version>[\w.!+-]+)"
    r" --hash=sha256:(?P<sha256>[0-9a-f]{64})",
    re.ASCII,
)
# MLflow's entry points through which it finds a store for "azureml://".
ENTRY_POINT_GROUPS = (
    "mlflow.tracking_store",
    "mlflow.model_registry_store",
    "mlflow.artifact_repository",
)


@dataclass(frozen=True, kw_only=True)
class WheelHash:
    """A line of a list of hashes.

    Args:
        name: Normalized name of the package, for example "azureml-mlflow".
        version: Version, for example "1.62.0.post6".
        sha256: Hash of the wheel in 64 hexadecimal digits.
    """

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def read_hashes(text: str) -> list[WheelHash]:
    """Return the lines `name==version --hash=sha256:...` of a list; a byte order mark is ignored.

    Raises:
        ClusterError: A line is anything else, for example an option of pip, or a package has two.
    """
    hashes: list[WheelHash] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        match = _HASH_LINE.fullmatch(line)
        if not match or match["name"] in {entry.name for entry in hashes}:
            raise ClusterError(
                f"{REQUIREMENTS_FILE} of a wheelhouse must have one line 'name==version "
                f"--hash=sha256:...' for each package: line {number} is none; fill the wheelhouse "
                "again with 'dbx-aml cluster wheelhouse'"
            )
        hashes.append(WheelHash(**match.groupdict()))
    return hashes
