"""``loop.getaddrinfo()`` of numeric addresses, which needs no thread."""

from __future__ import annotations

import socket

from . import _originals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NUMERIC = int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
_ADDRCONFIG = int(socket.AI_ADDRCONFIG)


def look_up(host: Any, port: Any, *hints: Any) -> list[Any] | None:
    """Return what getaddrinfo finds for a numeric host and port, or None.

    ``hints`` are family, type, proto and flags.  None, too, if the answer may
    differ each time: that for the name of an interface ("%") or AI_ADDRCONFIG
    depends on the machine's interfaces.
    """
    family, kind, proto, flags = hints
    if (
        not _originals.is_defined_in(socket, socket.getaddrinfo)
        or type(host) is not str
        or not host
        or not isinstance(flags, int)
        or (":" not in host and host.strip("0123456789."))
        or "%" in host
        or flags & _ADDRCONFIG
    ):
        return None
    try:
        return socket.getaddrinfo(
            host, port, family, kind, proto, flags | _NUMERIC
        )
    except (OSError, TypeError):
        return None  # not numeric, or the resolver raises a better error
