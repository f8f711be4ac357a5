"""The PROXY header, versions 1 and 2."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp.proxy import LONGEST_V1, LONGEST_V2, ProxyError, ProxyHeader, parse_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def version_1(client: str, port: int) -> bytes:
    family = "TCP6" if ":" in client else "TCP4"
    server = "::1" if ":" in client else "127.0.0.1"
    return f"PROXY {family} {client} {server} {port} 25\r\n".encode()


def version_2(client: str, port: int, *, command: int = 0x21, extra: bytes = b"") -> bytes:
    address = ipaddress.ip_address(client)
    family = 0x21 if address.version == 6 else 0x11
    block = address.packed + address.packed + struct.pack("!HH", port, 25) + extra
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


ADDRESSES = st.ip_addresses().map(str)
PORTS = st.integers(0, 65535)


@given(ADDRESSES, PORTS, st.booleans(), st.binary(max_size=20))
def test_a_header_is_read_and_what_follows_is_left(client: str, port: int, newer: bool, rest: bytes) -> None:
    header = version_2(client, port, extra=b"\x03\0\x04abcd") if newer else version_1(client, port)
    assert parse_header(header + rest) == ProxyHeader(len(header), (client, port))


@given(ADDRESSES, PORTS, st.booleans(), st.data())
def test_an_incomplete_header_is_waited_for(client: str, port: int, newer: bool, data: st.DataObject) -> None:
    header = version_2(client, port) if newer else version_1(client, port)
    cut = data.draw(st.integers(0, len(header) - 1))
    assert parse_header(header[:cut]) is None


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ff:: 1 2 3\r\n"])
def test_an_unknown_client_is_the_proxy_itself(header: bytes) -> None:
    assert parse_header(header) == ProxyHeader(len(header), None)


def test_a_health_probe_of_the_proxy_is_the_proxy_itself() -> None:
    header = version_2("192.0.2.1", 1, command=0x20)
    assert parse_header(header) == ProxyHeader(len(header), None)
    unix = SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216)
    assert parse_header(unix) == ProxyHeader(len(unix), None)


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO x\r\n",
        b"PROXY\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 25\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 25\r\n",
        b"PROXY TCP4 " + b"1" * LONGEST_V1,
        SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\0\x04" + bytes(4),
        SIGNATURE + b"\x21\x11" + struct.pack("!H", LONGEST_V2),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyError):
        parse_header(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_the_refusal(data: bytes) -> None:
    for start in (b"", b"PROXY ", SIGNATURE):
        try:
            parse_header(start + data)
        except ProxyError:
            pass
