"""What a cluster is given: the link's file, wheels, the init script, variables."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dbx_aml.cluster.record import CONFIG, CONFIG_VARIABLE, SCRIPT
from dbx_aml.cluster.storage import Folder
from dbx_aml.config_file import CONFIG_NAME, find_config
from dbx_aml.errors import ArgumentError, LinkError
from dbx_aml.settings import Link

WHEELS = "wheels"


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files for a cluster's folder.

    Args:
        content: By name in the folder; a wheel is read when it is its turn.
    """

    content: Mapping[str, bytes | Path]

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each."""
        return {name: hashlib.sha256(self.read(name)).hexdigest() for name in self.content}

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        content = self.content[name]
        return content.read_bytes() if isinstance(content, Path) else content


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is brought to a cluster, whichever folder it will be in.

    Args:
        link: What the cluster is linked to.
        wheels: By name in the folder.
        has_script: An init script does the rest; without, the wheels are cluster libraries.
    """

    link: Link
    wheels: Mapping[str, Path]
    has_script: bool

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the wheels that are to be cluster libraries."""
        return () if self.has_script else tuple(self.wheels)

    def files(self, folder: Folder) -> Files:
        """Return the files for a folder, the script last."""
        content: dict[str, bytes | Path] = {**self.wheels, CONFIG: _config_bytes(self.link)}
        if self.has_script:
            content[SCRIPT] = self._script(folder).encode()
        return Files(content=content)

    def variables(self, folder: Folder) -> dict[str, str]:
        """Return the variables with which MLflow and this package do what the link says."""
        uris = {
            "MLFLOW_TRACKING_URI": self.link.tracking_uri,
            "MLFLOW_REGISTRY_URI": self.link.registry_uri,
        }
        found = {name: uri for name, uri in uris.items() if uri is not None}
        # The script brings the file to each node, where nobody needs permission to read it.
        return found if self.has_script else {**found, CONFIG_VARIABLE: folder.file(CONFIG)}

    def _script(self, folder: Folder) -> str:
        return f"#!/bin/bash\n# {folder.file(WHEELS) if self.wheels else 'index'}\n"


def gather(config: Path | None, wheelhouse: Path | None, *, via: str) -> Parts:
    """Return what a cluster is given; nothing of the network is needed.

    Args:
        config: The link's `config.json` or its folder; by default as found from here.
        wheelhouse: Local folder with wheels.
        via: "init-script", "libraries" or "policy".

    Raises:
        ArgumentError: There are no wheels, or none where they are all there is.
        LinkError: There is no file, or it cannot be read.
    """
    wheels = sorted(wheelhouse.glob("*.whl")) if wheelhouse else []
    if wheelhouse and not wheels:
        raise ArgumentError(
            f"wheelhouse must hold wheels: got {str(wheelhouse)!r} without any; make it with "
            "'dbx-aml cluster wheelhouse'"
        )
    if via == "libraries" and not wheels:
        raise ArgumentError(
            "libraries must come from wheels: got none; give --wheelhouse, which 'dbx-aml cluster "
            "wheelhouse' makes"
        )
    return Parts(
        link=_read_link(config),
        wheels={f"{WHEELS}/{file.name}": file for file in wheels},
        has_script=via != "libraries",
    )


def _read_link(config: Path | None) -> Link:
    """Return the link of a file as it is meant on a cluster, whatever this machine's variables say.

    A file that says no mode, such as the one of the Azure portal, means "dual" there.
    """
    file = find_config(config or ".") if config is None or config.exists() else None
    if file is None:
        raise LinkError(
            f"link must be a {CONFIG_NAME} or a folder with one: got {str(config or '.')!r}; "
            "write one with 'dbx-aml link set'"
        )
    link = Link.of_file(file)
    is_default = link.origins.get("mode", "").startswith("default")
    return Link.of_file(file, mode="dual") if is_default and link.has_aml_side else link


def _config_bytes(link: Link) -> bytes:
    """Return the `config.json` of a link; secrets are only references in it."""
    with tempfile.TemporaryDirectory() as folder:
        return link.save(Path(folder) / CONFIG_NAME).read_bytes()
