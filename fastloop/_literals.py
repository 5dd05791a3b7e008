"""``loop.getaddrinfo()`` of numeric addresses, which needs no thread."""

from __future__ import annotations

import socket
import sys

from . import _originals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NUMERIC = int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
_ADDRCONFIG = int(socket.AI_ADDRCONFIG)
#: Classes of arguments whose equal objects are alike.
_PLAIN = frozenset(
    {
        int,
        str,
        type(None),
        socket.AddressFamily,
        socket.AddressInfo,
        socket.SocketKind,
    }
)
#: Answers: a call takes 3 us, most of them for enum members.
_answers: dict[tuple[Any, ...], list[Any]] = {}
_MOST_ANSWERS = 256


def look_up(host: Any, port: Any, *hints: Any) -> list[Any] | None:
    """Return what getaddrinfo finds for a numeric host and port, or None.

    ``hints`` are family, type, proto and flags.  None, too, if the answer may
    differ each time: that for the name of an interface ("%") or AI_ADDRCONFIG
    depends on the machine's interfaces.
    """
    query = host, port, *hints
    if not (
        _PLAIN.issuperset(map(type, query))
        and _originals.is_defined_in(socket, socket.getaddrinfo)
    ):
        return None
    found = _answers.get(query)
    if found is not None:
        sys.audit("socket.getaddrinfo", *query[:-1])
        return found.copy()
    family, kind, proto, flags = hints
    if (
        type(host) is not str
        or not host
        or not isinstance(flags, int)
        or (":" not in host and host.strip("0123456789."))
        or "%" in host
        or flags & _ADDRCONFIG
    ):
        return None
    try:
        found = socket.getaddrinfo(
            host, port, family, kind, proto, flags | _NUMERIC
        )
    except (OSError, TypeError):
        return None  # not numeric, or the resolver raises a better error
    if len(_answers) >= _MOST_ANSWERS:
        _answers.clear()
    _answers[query] = found.copy()
    return found
