"""Call a program of `program_server.py`: `python -IS program_client.py SOCKET PROGRAM ARGUMENT...`.

The caller has the program's standard streams and its exit status.
"""

import json
import os
import socket
import sys

address, *command_line = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(address)
    socket.send_fds(server, [b"streams"], [0, 1, 2])
    server.sendall(json.dumps([os.getcwd(), dict(os.environ), command_line]).encode() + b"\n")
    status = int(server.recv(8) or b"1")
sys.exit(status)
