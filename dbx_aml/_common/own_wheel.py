"""The running package: its requirements, and its wheel for machines without a package index."""

import base64
import hashlib
from importlib.metadata import distribution, requires
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_PACKAGE_FOLDER = Path(__file__).parents[1]
_WHEEL = "Wheel-Version: 1.0\nGenerator: dbx-aml\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_requirements() -> list[str]:
    """Return the requirements of the installed dbx-aml, without extras."""
    return [line for line in requires("dbx-aml") or () if "extra ==" not in line]


def write_own_wheel(folder: Path) -> Path:
    """Write the wheel of the installed dbx-aml into a folder; return its path.

    It has the files that this process runs, however they were installed. The same files give the
    same bytes.

    Args:
        folder: Folder that exists.

    Source:
        PyPA, "Binary distribution format"; seen 2026-11.
    """
    installed = distribution("dbx-aml")
    stem = f"dbx_aml-{installed.version}"
    contents = {
        f"{_PACKAGE_FOLDER.name}/{file.relative_to(_PACKAGE_FOLDER).as_posix()}": file.read_bytes()
        for file in sorted(_PACKAGE_FOLDER.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    # Beside the sources of a checkout the metadata has the older name.
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    for name, text in (
        ("METADATA", metadata),
        ("WHEEL", _WHEEL),
        ("entry_points.txt", installed.read_text("entry_points.txt") or ""),
    ):
        contents[f"{stem}.dist-info/{name}"] = text.encode()
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{name},{_digest(content)},{len(content)}" for name, content in contents.items()]
    contents[record] = "".join(f"{line}\n" for line in [*lines, f"{record},,"]).encode()
    wheel = folder / f"{stem}-py3-none-any.whl"
    with ZipFile(wheel, "w", ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            # Without a time: an archive of the same files must have the same hash.
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)
    return wheel


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.decode().rstrip('=')}"
