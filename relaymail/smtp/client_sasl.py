"""Logging in at a smarthost: the client's side of AUTH with PLAIN (RFC 4616) and LOGIN (RFC 4954)."""

from __future__ import annotations

import base64
from collections.abc import Collection

from relaymail.smtp.client_errors import ConnectFailed
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_wire import Wire
from relaymail.smtp.sasl import Credentials


async def log_in(wire: Wire, credentials: Credentials, mechanisms: Collection[str], seconds: float) -> None:
    """Log in with the best of the ``mechanisms`` that are offered.

    :param seconds: for each step.
    :raises ConnectFailed: there is none that we know, or the host refuses. It is a temporary failure always:
        the password here may be what is wrong, and no mail should come back because of that.
    :raises Broken: the connection broke.
    """
    login, password = credentials.login.encode(), credentials.password.encode()
    if "PLAIN" in mechanisms:
        reply = await _say(wire, b"AUTH PLAIN " + base64.b64encode(b"\0" + login + b"\0" + password), seconds)
        if reply.code == 334:
            # Old hosts overlook the initial response
            reply = await _say(wire, base64.b64encode(b"\0" + login + b"\0" + password), seconds)
    elif "LOGIN" in mechanisms:
        reply = await _say(wire, b"AUTH LOGIN", seconds)
        for answer in (login, password):
            if reply.code == 334:
                reply = await _say(wire, base64.b64encode(answer), seconds)
    else:
        raise ConnectFailed("auth", "the host offers neither AUTH PLAIN nor AUTH LOGIN", status="4.7.0")
    if reply.code != 235:
        status = "4" + reply.status[1:] if reply.code // 100 == 5 else "4.7.0"
        raise ConnectFailed("auth", "the host refused the login", status=status, reply=reply)


async def _say(wire: Wire, line: bytes, seconds: float) -> RemoteReply:
    wire.command(line + b"\r\n")
    return await wire.reply(seconds)
