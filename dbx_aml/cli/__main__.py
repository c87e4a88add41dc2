"""`python -m dbx_aml.cli` is `dbx-aml`."""

from dbx_aml.cli.main import main

main(prog_name="dbx-aml")
