"""Write wheels: small stand-ins, and the wheel of the dbx-aml under test."""

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dbx_aml._common.own_wheel import write_own_wheel
from dbx_aml.cluster.node.requirements import WheelHash
from dbx_aml.cluster.resolve import Wheel


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    requires: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    entry_points: str = "",
) -> Path:
    """Write a pure Python wheel with some files."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    return _write(folder, name, version, metadata, dict(files or {}), entry_points)


def own_wheel(folder: Path) -> Path:
    """Write the wheel of the dbx-aml under test into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_own_wheel(folder)


def list_wheels(folder: Path, runtime: object = "17.3") -> Path:
    """Make a wheelhouse of a folder's wheels: list their hashes, and name the runtime."""
    entries = (
        WheelHash(name=wheel.name, version=wheel.version, sha256=sha256(file))
        for file in sorted(folder.glob("*.whl"))
        for wheel in [Wheel.from_file(file)]
    )
    (folder / "requirements.txt").write_text("".join(f"{entry}\n" for entry in entries))
    (folder / "wheelhouse.json").write_text(json.dumps({"runtime": runtime}))
    return folder


def wheelhouse_variables(folder: Path) -> dict[str, str]:
    """Return the variables of a cluster that name a wheelhouse and the hash of its list."""
    return {
        "DBX_AML_WHEELHOUSE_PATH": str(folder),
        "DBX_AML_WHEELHOUSE_SHA256": sha256(folder / "requirements.txt"),
    }


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write(
    folder: Path, name: str, version: str, metadata: str, files: dict[str, str], entry_points: str
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = metadata
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if entry_points:
        files[f"{info}/entry_points.txt"] = entry_points
    record = []
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            digest = hashlib.sha256(text.encode()).digest()
            encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            record.append(f"{path},sha256={encoded},{len(text.encode())}\n")
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
    return wheel
