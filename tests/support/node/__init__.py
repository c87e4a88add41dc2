"""A temporary node of a cluster: a folder in place of `/`, with its own Python and pip.

`wheel` writes wheels, `runtime` makes a Python with a runtime's packages, `index` serves wheels
over HTTP, `node` runs the init script in such a folder.
"""
