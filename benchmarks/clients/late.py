"""A client that tells a server how late its bytes are.

    python benchmarks/clients/late.py PORT
    python benchmarks/clients/late.py PORT --starttls

All processes read one CLOCK_MONOTONIC.  It ends when the server closes the
connection.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time

ADDRESS = "127.0.0.1"


def answer_each_line(port: int) -> None:
    """Answer each line, which is a time, by the nanoseconds since then."""
    with socket.create_connection((ADDRESS, port)) as sock:
        for line in sock.makefile("rb"):
            late_ns = time.monotonic_ns() - int(line)
            sock.sendall(b"%d\n" % late_ns)


def ask_after_starttls(port: int) -> None:
    """Upgrade a connection after another; say how long a reply took.

    Each begins at the server's greeting, like one of SMTP.
    """
    context = ssl._create_unverified_context()
    while True:
        with socket.create_connection((ADDRESS, port)) as plain:
            if not plain.recv(100):
                return
            plain.sendall(b"STARTTLS\n")
            plain.recv(100)
            with context.wrap_socket(plain) as sock:
                start_ns = time.monotonic_ns()
                sock.sendall(b"EHLO\n")
                sock.recv(100)
                sock.sendall(b"%d\n" % (time.monotonic_ns() - start_ns))
                sock.recv(100)  # it closes first: the line is not lost


if __name__ == "__main__":
    talk = ask_after_starttls if sys.argv[2:] else answer_each_line
    talk(int(sys.argv[1]))
