"""A throw-away node of a cluster: a folder in the place of `/`, with a real Python and real pip.

`wheel` writes wheels, `runtime` a Python with what a runtime brings, `index` serves wheels over
HTTP and can fail, `node` runs the init script in such a folder.
"""
