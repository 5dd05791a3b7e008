"""Calls of libssl that the ssl module has no name for.

They make a test's own SSLObject do what a peer may do at any time: ask for
new keys (TLS 1.3) or for a new handshake (TLS 1.2).  And records that libssl
itself never makes.
"""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import hmac
import ssl
from typing import Any

import pytest


def library() -> Any:
    """The libssl that the ssl module uses."""
    file = getattr(_ssl, "__file__", None)
    if file is None:
        pytest.skip("_ssl is built in: its libssl cannot be called")
    found = ctypes.CDLL(file)
    found.SSL_get_ex_data.restype = ctypes.c_void_p
    found.SSL_get_ex_data.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.SSL_renegotiate.argtypes = [ctypes.c_void_p]
    found.SSL_ctrl.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_void_p,
    ]
    found.SSL_ctrl.restype = ctypes.c_long
    return found


class LibsslCalls:
    """The SSL of a WirePeer, and the records that it makes."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.library = library()
        owner = peer.tls._sslobj
        # CPython's object has its socket first, then its SSL.
        place = (
            id(owner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
        )
        self.ssl = ctypes.c_void_p.from_address(place).value
        # And there CPython stores its object in the SSL.
        assert self.library.SSL_get_ex_data(self.ssl, 0) == id(owner)

    def _seal(self, count: int, call: Any, *args: Any) -> bytes:
        assert not self.peer.outgoing.pending
        for _ in range(count):
            assert call(self.ssl, *args) == 1
            with contextlib.suppress(ssl.SSLWantReadError):
                self.peer.tls.do_handshake()
        return bytes(self.peer.outgoing.read())

    def seal_key_updates(self, count: int, asking: bool) -> bytes:
        """So many KeyUpdate messages, not sent.

        *asking* says whether each wants one of the other side's in return.
        """
        return self._seal(count, self.library.SSL_key_update, asking)

    def seal_renegotiations(self, count: int) -> bytes:
        """So many times what asks for a new handshake, not sent."""
        return self._seal(count, self.library.SSL_renegotiate)

    def count_renegotiations(self) -> int:
        """How many handshakes there were after the first one."""
        number = 10  # SSL_CTRL_GET_NUM_RENEGOTIATIONS
        return int(self.library.SSL_ctrl(self.ssl, number, 0, None))


def seal_alert(secret: bytes, number: int, alert: bytes) -> bytes:
    """A TLS 1.3 record of AES-256-GCM, from a traffic secret (RFC 8446, 5.2).

    *number* is how many its sender has sealed with the secret before.
    """

    def expand(label: bytes, size: int) -> bytes:
        name = b"tls13 " + label
        info = bytes([0, size, len(name), *name, 0, 1])
        return hmac.digest(secret, info, "sha384")[:size]

    crypto = library()
    crypto.EVP_aes_256_gcm.restype = ctypes.c_void_p
    crypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    cipher = ctypes.c_void_p(crypto.EVP_aes_256_gcm())
    nonce = int.from_bytes(expand(b"iv", 12), "big") ^ number
    text = alert + b"\x15"
    head = b"\x17\x03\x03" + (len(text) + 16).to_bytes(2, "big")
    body, tag = ctypes.create_string_buffer(3), ctypes.create_string_buffer(16)
    size = ctypes.byref(ctypes.c_int())
    key, start = expand(b"key", 32), nonce.to_bytes(12, "big")
    assert crypto.EVP_EncryptInit_ex(context, cipher, None, key, start)
    assert crypto.EVP_EncryptUpdate(context, None, size, head, 5)
    assert crypto.EVP_EncryptUpdate(context, body, size, text, 3)
    assert crypto.EVP_EncryptFinal_ex(context, tag, size)
    assert crypto.EVP_CIPHER_CTX_ctrl(context, 0x10, 16, tag)
    crypto.EVP_CIPHER_CTX_free(context)
    return head + body.raw + tag.raw
