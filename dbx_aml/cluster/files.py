"""What a cluster is given: the link's file, a wheelhouse, the init script, variables."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, ClusterError, LinkError
from dbx_aml.cluster.attach_record import CONFIG, CONFIG_VARIABLE, SCRIPT
from dbx_aml.cluster.clusters import Cluster
from dbx_aml.cluster.folder import Folder
from dbx_aml.cluster.init_script import link_of_file, render
from dbx_aml.cluster.node.requirements import REQUIREMENTS_FILE
from dbx_aml.cluster.node.spark_environment import variables
from dbx_aml.cluster.runtimes import known_runtimes
from dbx_aml.cluster.wheelhouse import WHEELHOUSE_FILE
from dbx_aml.link.config_file import CONFIG_NAME, find_config
from dbx_aml.link.link import Link

# Of the wheelhouse, in the cluster's folder.
_WHEELHOUSE = "wheelhouse"
_HOME = Path("/databricks")


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
        wheelhouse: Files of the local wheelhouse by their name in the folder; the list of hashes
            is last.
        has_script: An init script does the rest; without, the wheels are cluster libraries.
        on_failure: "continue" or "stop": what the script does to a cluster when it fails.
    """

    link: Link
    wheelhouse: Mapping[str, Path]
    has_script: bool
    on_failure: str = "continue"

    @property
    def wheels(self) -> tuple[str, ...]:
        """Names of the wheels."""
        return tuple(name for name in self.wheelhouse if name.endswith(".whl"))

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the wheels that are to be cluster libraries."""
        return () if self.has_script else self.wheels

    def files(self, folder: Folder) -> Files:
        """Return the files for a folder, the script last.

        Raises:
            ArgumentError: The script could not read the wheelhouse there.

        Source:
            Databricks' page "What files can I reference in an init script?": those of volumes,
            by a script in a volume; workspace files never.
        """
        if self.has_script and self.wheelhouse and not folder.is_volume:
            raise ArgumentError(
                "wheelhouse must be in a volume, where an init script can read it: got "
                f"{folder.path!r}; give --folder /Volumes/<catalog>/<schema>/<volume>, leave "
                "--wheelhouse out, or use --method libraries"
            )
        content: dict[str, bytes | Path] = {**self.wheelhouse, CONFIG: _config_bytes(self.link)}
        if self.has_script:
            where = folder.file(_WHEELHOUSE) if self.wheelhouse else None
            text = render(self.link, wheelhouse_path=where, on_failure=self.on_failure)
            content[SCRIPT] = text.encode()
        return Files(content=content)

    def variables(self, folder: Folder) -> dict[str, str]:
        """Return the variables with which MLflow and this package do what the link says."""
        found = variables(self.link, _HOME)
        # The script brings the file to each node, where nobody needs permission to read it; before
        # it has done so, a variable that names the file would be wrong.
        del found[CONFIG_VARIABLE]
        return found if self.has_script else {**found, CONFIG_VARIABLE: folder.file(CONFIG)}

    def check_runtime(self, cluster: Cluster) -> None:
        """Refuse a wheelhouse that was made for another runtime.

        Raises:
            ClusterError: It was; what it lacks, or has too much, would show on the cluster only.
        """
        about = self.wheelhouse.get(f"{_WHEELHOUSE}/{WHEELHOUSE_FILE}")
        runtime = str(json.loads(about.read_text(encoding="utf-8"))["runtime"]) if about else ""
        version = str(cluster.spec.get("spark_version", ""))
        if runtime not in known_runtimes() or version.startswith(f"{runtime.split('-')[0]}."):
            return
        raise ClusterError(
            f"wheelhouse must be for the cluster's runtime: got one for {runtime}, and {cluster} "
            f"has {version}; make one with 'dbx-aml cluster wheelhouse --runtime'"
        )


def gather(
    config: Path | None, wheelhouse: Path | None, *, method: str, on_failure: str = "continue"
) -> Parts:
    """Return what a cluster is given; nothing of the network is needed.

    Args:
        config: The link's `config.json` or its folder; by default as found from here.
        wheelhouse: Local folder that 'dbx-aml cluster wheelhouse' filled.
        method: "init-script", "libraries" or "policy".
        on_failure: "continue" or "stop".

    Raises:
        ArgumentError: There are no wheels, or none where they are all there is.
        LinkError: There is no file, or it cannot be read.
    """
    files: dict[str, Path] = {}
    if wheelhouse:
        found = [
            *sorted(wheelhouse.glob("*.whl")),
            wheelhouse / WHEELHOUSE_FILE,
            wheelhouse / REQUIREMENTS_FILE,
        ]
        if len(found) == 2 or not all(file.is_file() for file in found):
            raise ArgumentError(
                f"wheelhouse must hold wheels and their hashes: got {str(wheelhouse)!r} without; "
                "fill it with 'dbx-aml cluster wheelhouse'"
            )
        files = {f"{_WHEELHOUSE}/{file.name}": file for file in found}
    if method == "libraries" and not files:
        raise ArgumentError(
            "libraries must come from wheels: got none; give --wheelhouse, which 'dbx-aml cluster "
            "wheelhouse' fills"
        )
    is_script = method != "libraries"
    return Parts(
        link=_read_link(config), wheelhouse=files, has_script=is_script, on_failure=on_failure
    )


def _read_link(config: Path | None) -> Link:
    file = find_config(config or ".") if config is None or config.exists() else None
    if file is None:
        raise LinkError(
            f"link must be a {CONFIG_NAME} or a folder with one: got {str(config or '.')!r}; "
            "write one with 'dbx-aml link set'"
        )
    return link_of_file(file)


def _config_bytes(link: Link) -> bytes:
    """Return the `config.json` of a link; secrets are only references in it."""
    with tempfile.TemporaryDirectory() as folder:
        return link.save(Path(folder) / CONFIG_NAME).read_bytes()
