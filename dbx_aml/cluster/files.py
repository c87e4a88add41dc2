"""The files of an attached cluster: `config.json`, the init script, the wheels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dbx_aml._common.errors import ArgumentError, LinkError
from dbx_aml._common.paths import sha256_of_file
from dbx_aml.cluster.attach_record import CONFIG_VARIABLE, WHEELHOUSE_FOLDER, AttachMethod
from dbx_aml.cluster.clusters import Reporter
from dbx_aml.cluster.folder import ClusterFolder
from dbx_aml.cluster.init_script import DEFAULT_TIMEOUT_S, SCRIPT_NAME, render
from dbx_aml.cluster.node.spark_environment import link_variables
from dbx_aml.cluster.settings_change import Library, Script
from dbx_aml.cluster.wheelhouse import WheelhouseFiles, read_wheelhouse
from dbx_aml.link.config_file import (
    CONFIG_NAME,
    find_config,
    read_config,
    refuse_remote_servers,
)
from dbx_aml.link.link import Link

_DATABRICKS_HOME = Path("/databricks")


@dataclass(frozen=True, kw_only=True)
class FolderFiles:
    """The files of one cluster's folder, and the settings that refer to them.

    Args:
        folder: Folder in a volume or in the workspace.
        method: "init-script" or "libraries".
        runtime: Runtime of the wheelhouse.
        content: Content, or local file, of each file by its name in the folder.
        script: Init script as the clusters API names it; None with method "libraries".
        libraries: Wheels to install as cluster libraries; empty with an init script.
        variables: Environment variables for MLflow and this package.
    """

    folder: ClusterFolder
    method: AttachMethod
    runtime: str
    content: Mapping[str, bytes | Path]
    script: Script | None
    libraries: tuple[Library, ...]
    variables: Mapping[str, str]

    @property
    def script_path(self) -> str:
        """Path of the init script in the folder."""
        return self.folder.file_path(SCRIPT_NAME)

    def sha256(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its name."""
        return {
            name: sha256_of_file(content)
            if isinstance(content, Path)
            else hashlib.sha256(content).hexdigest()
            for name, content in self.content.items()
        }

    def upload(self, report: Reporter) -> None:
        """Write all files to the folder, the init script last.

        Raises:
            ClusterError: The volume does not exist, or a file is too large for the workspace.
            ServiceError: The caller may not write to the folder.
        """
        report(f"uploading {len(self.content)} files to {self.folder}")
        for name, content in self.content.items():
            self.folder.write_file(
                name, content.read_bytes() if isinstance(content, Path) else content
            )


@dataclass(frozen=True, kw_only=True)
class ClusterFiles:
    """The files for clusters with one link, before their folder is known.

    Args:
        link: Link of the clusters.
        method: "init-script" or "libraries".
        wheelhouse: Wheels and their list of hashes.
        on_failure: "continue" or "stop": whether a cluster starts if its init script fails.
        init_timeout_s: Longest time of the init script in seconds.
    """

    link: Link
    method: AttachMethod
    wheelhouse: WheelhouseFiles
    on_failure: str = "continue"
    init_timeout_s: int = DEFAULT_TIMEOUT_S

    def in_folder(self, folder: ClusterFolder) -> FolderFiles:
        """Return the files for a folder: the init script and the variables name paths in it.

        Raises:
            ArgumentError: An init script could not read its wheels in this folder.

        Source:
            Databricks, "What files can I reference in an init script?": a script in a volume may
            read files in volumes, and no script may read workspace files.
        """
        is_script = self.method != "libraries"
        if is_script and not folder.is_volume:
            raise ArgumentError(
                "folder must be in a volume, where the init script can read its wheels: got "
                f"{folder.path!r}; give --folder /Volumes/<catalog>/<schema>/<volume>, or use "
                "--method libraries"
            )
        wheelhouse = self.wheelhouse
        content = {f"{WHEELHOUSE_FOLDER}/{name}": file for name, file in wheelhouse.content.items()}
        content[CONFIG_NAME] = self.link.to_json().encode()
        if not is_script:
            wheels = [name for name in content if name.endswith(".whl")]
            return FolderFiles(
                folder=folder,
                method=self.method,
                runtime=wheelhouse.runtime,
                content=content,
                script=None,
                libraries=tuple({"whl": folder.file_path(name)} for name in wheels),
                variables=self._library_variables(folder),
            )
        script = render(
            self.link,
            wheelhouse_path=folder.file_path(WHEELHOUSE_FOLDER),
            wheelhouse_sha256=wheelhouse.sha256,
            on_failure=self.on_failure,
            init_timeout_s=self.init_timeout_s,
        )
        content[SCRIPT_NAME] = script.encode()
        return FolderFiles(
            folder=folder,
            method=self.method,
            runtime=wheelhouse.runtime,
            content=content,
            script=folder.script_location(SCRIPT_NAME),
            libraries=(),
            # The script itself sets the variables, once it has added the plugin for "azureml://".
            # A variable of the cluster would be in force after a failure, too: plain MLflow would
            # raise for every user.
            variables={},
        )

    def _library_variables(self, folder: ClusterFolder) -> dict[str, str]:
        """Return the variables for a cluster with libraries.

        A library may fail, or end after the first notebook has begun: a URI that needs the plugin
        is set by dbx_aml.connect() only.
        """
        variables = {
            name: value
            for name, value in link_variables(self.link, _DATABRICKS_HOME).items()
            if not value.startswith("azureml://")
        }
        return {**variables, CONFIG_VARIABLE: folder.file_path(CONFIG_NAME)}


def collect_files(
    config: str | Path | None,
    wheelhouse: Path | None,
    *,
    method: AttachMethod,
    on_failure: str = "continue",
    init_timeout_s: int = DEFAULT_TIMEOUT_S,
) -> ClusterFiles:
    """Read the link and list the wheels; no service is called.

    Args:
        config: A `config.json` or its folder; by default searched from the current folder on.
        wheelhouse: Local folder that 'dbx-aml cluster wheelhouse' has filled.
        method: "init-script" or "libraries".
        on_failure: "continue" or "stop".
        init_timeout_s: Longest time of the init script in seconds.

    Raises:
        ArgumentError: The wheelhouse is missing, or a wheel and the list differ.
        LinkError: No `config.json` exists, or it cannot be read.
    """
    return ClusterFiles(
        link=read_cluster_link(config),
        method=method,
        wheelhouse=read_wheelhouse(wheelhouse),
        on_failure=on_failure,
        init_timeout_s=init_timeout_s,
    )


def read_cluster_link(config: str | Path | None) -> Link:
    """Return the link of a `config.json` as a cluster will read it.

    A file from the Azure portal does not name a mode: on a cluster this means "dual".

    Args:
        config: The file or its folder; by default searched from the current folder on.

    Raises:
        LinkError: The file does not exist or cannot be read, or its values contradict each other.
        WorkspaceError: The Azure ML workspace cannot exist.
    """
    file = find_config(config or ".") if config is None or Path(config).exists() else None
    if file is None:
        raise LinkError(
            f"link must be a {CONFIG_NAME} or a folder with one: got {str(config or '.')!r}; "
            "write one with 'dbx-aml link set'"
        )
    if config is None:
        refuse_remote_servers(file, read_config(file))
    return Link.from_file(file, on_databricks=True)
