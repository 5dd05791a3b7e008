"""What tests with real programs share.

In-process tests take `run` and `loop_kind` of tests/conftest.py and so run on
asyncio and on fastloop.  Real servers are started once a session, on
temporary directories and ports of their own, and the tests that need one are
skipped where its program is not installed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from interop_process import CERTS, Process, child_env, free_port
from patience import PATIENCE


@pytest.fixture
def start():
    """start(*argv, **kwargs): a child of `Process.python`, ended after."""
    children: list[Process] = []

    def start(*argv, **kwargs):
        children.append(Process.python(*argv, **kwargs))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture(scope="session")
def server_tls() -> ssl.SSLContext:
    """A server's context: the certificate of localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    return context


@pytest.fixture(scope="session")
def client_tls() -> ssl.SSLContext:
    """A client's context, which trusts the tests' own authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTS / "ca.pem")
    return context


def _unprivileged() -> pwd.struct_passwd:
    """Whom to start a server as that refuses root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL does not run as root, and nobody else exists")


def _postgres_bin() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parts[-3]),
    )
    if not found and (onpath := shutil.which("postgres")):
        found = [Path(onpath)]
    if not found:
        pytest.skip("PostgreSQL's server is not installed")
    return found[-1].parent


def _own_copy(source: Path, folder: Path, user: pwd.struct_passwd) -> None:
    copy = folder / source.name
    shutil.copyfile(source, copy)
    copy.chmod(0o600)
    shutil.chown(copy, user.pw_uid)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server: host, port, socket folder, user, with TLS."""
    bin_, user = _postgres_bin(), _unprivileged()
    base = Path(tempfile.mkdtemp(prefix="fastloop-pg-"))
    data = base / "data"
    data.mkdir(mode=0o700)
    shutil.chown(base, user.pw_uid)
    shutil.chown(data, user.pw_uid)
    me = user.pw_name
    as_user = {}
    if os.geteuid() == 0:
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
        as_user["extra_groups"] = []
    try:
        subprocess.run(
            [bin_ / "initdb", "-D", data, "-U", me, "-A", "trust"]
            + ["--no-sync", "--no-locale", "-E", "UTF8"],
            check=True,
            timeout=PATIENCE,
            stdout=subprocess.DEVNULL,
            cwd=base,
            **as_user,
        )
        for name in ("localhost.pem", "localhost.key"):
            _own_copy(CERTS / name, data, user)
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": base,
            "fsync": "off",
            "max_connections": 30,
            "shared_buffers": "16MB",
            "ssl": "on",
            "ssl_cert_file": "localhost.pem",
            "ssl_key_file": "localhost.key",
        }
        options = [f"--{k}={v}" for k, v in settings.items()]
        server = Process(
            str(bin_ / "postgres"),
            "-D",
            str(data),
            *options,
            env=child_env(LC_ALL="C"),
            cwd=base,
            **as_user,
        )
        try:
            server.wait_for("ready to accept connections")
            yield SimpleNamespace(
                host="127.0.0.1", port=port, folder=str(base), user=me
            )
        finally:
            server.stop()
    finally:
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def redis_server():
    """A redis-server: its TCP ports, plain and of TLS, its Unix socket."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    base = Path(tempfile.mkdtemp(prefix="fastloop-redis-"))
    port, tls_port = free_port(), free_port()
    server = Process(
        program,
        *("--bind", "127.0.0.1", "--port", str(port)),
        *("--tls-port", str(tls_port), "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(CERTS / "localhost.pem")),
        *("--tls-key-file", str(CERTS / "localhost.key")),
        *("--tls-ca-cert-file", str(CERTS / "ca.pem")),
        *("--unixsocket", str(base / "sock"), "--save", ""),
        *("--dir", str(base), "--appendonly", "no"),
        cwd=base,
    )
    try:
        server.wait_for("Ready to accept connections")
        yield SimpleNamespace(
            port=port, tls_port=tls_port, path=str(base / "sock")
        )
    finally:
        server.stop()
        shutil.rmtree(base)
