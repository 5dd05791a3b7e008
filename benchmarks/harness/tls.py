"""The contexts of TLS servers and clients, with the tests' certificate."""

from __future__ import annotations

import ssl

from harness import ROOT

CERTIFICATES = ROOT / "tests" / "certs"


def server_context() -> ssl.SSLContext:
    """Return the context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key"
    )
    return context


def client_context() -> ssl.SSLContext:
    """Return the context of a client that trusts any server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
