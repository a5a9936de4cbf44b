"""A listening socket that stays open while servers come and go, as a service manager holds it.

held_socket.py hold PATH                  listens on a free port, prints it, and hands the socket to each process that connects to PATH
held_socket.py run PATH PROGRAM ARGS...   becomes the program, with the socket passed as sd_listen_fds(3) says
"""

import os
import socket
import sys

FIRST_DESCRIPTOR = 3


def hold(path):
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    print(listener.getsockname()[1], flush=True)
    while True:
        visitor, _ = door.accept()
        with visitor:
            socket.send_fds(visitor, [b"."], [listener.fileno()])


def run(path, program, *args):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        _, [received], _, _ = socket.recv_fds(door, 1, 1)
    if received != FIRST_DESCRIPTOR:
        os.dup2(received, FIRST_DESCRIPTOR)
        os.close(received)
    os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="clients", LISTEN_PID=str(os.getpid()))
    os.execv(program, [program, *args])


if __name__ == "__main__":
    {"hold": hold, "run": run}[sys.argv[1]](*sys.argv[2:])
