"""IPv6 addresses with the zone they belong to."""

import ipaddress
import socket

import pytest


@pytest.mark.skipif(
    not socket.has_ipv6 or not hasattr(socket, "if_nameindex"),
    reason="needs IPv6 and names of interfaces",
)
async def test_ipv6_zones(loop):
    index, name = socket.if_nameindex()[0]
    for zone in (name, str(index)):
        (found,) = await loop.getaddrinfo(
            f"fe80::1%{zone}", 80, type=socket.SOCK_STREAM
        )
        address = found[4]
        assert address[3] == index
        assert ipaddress.ip_address(address[0]).is_link_local
        assert address[1] == 80
