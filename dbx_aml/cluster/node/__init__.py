"""The init script: rendered here, and on a cluster's node the part of it that is Python.

`dbx_aml_init.sh` fetches this package and runs `node`, straight from the wheel and with nothing
installed yet. That computes what to add (`plan`), adds it with the cluster's pip (`pip`), proves
it in a process of its own (`proof`), writes what REPLs and executors read (`environment`), and
says what it did in the marker.
"""
