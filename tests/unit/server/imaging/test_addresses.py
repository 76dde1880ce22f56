"""Which addresses a service may be sent to."""

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from medmoe.server.imaging.fetch.addresses import SystemResolver, is_public

PUBLIC = (
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.254",
    "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
)  # fmt: skip
NOT_PUBLIC = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::8.8.8.8", "::127.0.0.1", "fe80::1", "fe80::1%1", "2606:4700::1111%1", "fec0::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:224.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::e000:1", "64:ff9b:1::808:808",
    "2002:7f00:1::", "2002:808:808::", "2001:0:7f00:1::1", "2001:0:808:808::1", "2001:10::1", "2001:20::1",
)  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_global_unicast_addresses_are_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_private_reserved_multicast_and_tunnelled_addresses_are_not(text: str) -> None:
    assert not is_public(ip_address(text))


async def test_the_system_is_asked_once_and_for_every_family(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def answer(*arguments: Any, **options: Any) -> list[Any]:
        asked.append((*arguments, options))
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2606:4700::1111", 443, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    found = await SystemResolver(threads=1)("images.example.org")
    assert found == ((ip_address("2606:4700::1111"), 443), (ip_address("8.8.8.8"), 443))
    assert asked == [("images.example.org", 443, {"type": socket.SOCK_STREAM})]
