"""``postgresql://`` URLs (PostgreSQL manual, 34.1.1.2), read into libpq keywords and written from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from relaymail.settings.errors import SettingsError
from relaymail.settings.spelling import nearest

SCHEMES = ("postgresql", "postgres")

# As of PostgreSQL 17, whose libpq psycopg2-binary brings.
_LIBPQ = """
    host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout
    client_encoding options application_name fallback_application_name keepalives keepalives_idle
    keepalives_interval keepalives_count tcp_user_timeout gssencmode sslmode requiressl sslnegotiation
    sslcompression sslcert sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni
    requirepeer ssl_min_protocol_version ssl_max_protocol_version
    krbsrvname gsslib gssdelegation service target_session_attrs load_balance_hosts
"""
KEYWORDS = frozenset(_LIBPQ.split())
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

ENCODE = "(in a password, characters such as @ : / ? # % must be percent-encoded)"
"""Added where a wrong part may be the rest of a password; so the part itself is never shown."""

_HOST = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_WORD = re.compile(r"[A-Za-z][A-Za-z _]{2,40}")


def parse(url: str) -> dict[str, str]:
    """Read ``url`` into libpq keywords.

    Raises :class:`SettingsError` for a malformed host, port or percent-code and for unknown parameters.
    """
    rest = url.partition("://")[2]
    rest, _, query = rest.partition("?")
    authority, _, database = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    parameters = _hosts(hosts)
    user, colon, password = login.partition(":")
    for keyword, text, given in (
        ("user", user, at and user),
        ("password", password, at and colon),
        ("dbname", database, database),
    ):
        if given:
            parameters[keyword] = _decode(text)
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"a parameter behind the ? has no value {ENCODE}")
        keyword, decoded = _parameter(_decode(name), _decode(value))
        parameters[keyword] = decoded
    return parameters


def _hosts(text: str) -> dict[str, str]:
    """The hosts of the authority: comma separated, each with its port or none."""
    if not text:
        return {}
    hosts, ports = [], []
    for item in text.split(","):
        match = _HOST.fullmatch(item)
        if match is None:
            raise SettingsError(f"a malformed host or port {ENCODE}")
        host, port = match["host"], match["port"] or ""
        if port and not valid_port(port):
            raise SettingsError(f"a port outside of 1 to 65535 {ENCODE}")
        hosts.append(_decode(host[1:-1] if host.startswith("[") else host))
        ports.append(port)
    if any("," in host for host in hosts):
        raise SettingsError("a comma inside a host")
    parameters = {"host": ",".join(hosts)} if any(hosts) else {}
    if any(ports):
        parameters["port"] = ",".join(ports) if len(set(ports)) > 1 else ports[0]
    return parameters


def _parameter(name: str, value: str) -> tuple[str, str]:
    """One parameter of the query, checked."""
    if name == "ssl" and value == "true":
        # JDBC's spelling, which libpq takes too
        return "sslmode", "require"
    if name not in KEYWORDS:
        raise SettingsError(f"unknown parameter {shown_word(name)}{suggestion(name, KEYWORDS)}")
    if name == "sslmode" and value not in SSL_MODES:
        raise SettingsError(f"sslmode is none of {', '.join(SSL_MODES)}")
    if name == "port" and not all(not part or valid_port(part) for part in value.split(",")):
        raise SettingsError("a port outside of 1 to 65535")
    return name, value


def valid_port(text: str) -> bool:
    """Whether ``text`` is a TCP port in decimal."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def shown_word(name: str) -> str:
    """``name`` in quotes, if it looks like a keyword and not like the rest of a password."""
    return (
        f'"{name}"'
        if _WORD.fullmatch(name)
        else "(not shown, it may be a piece of a password that needs quoting)"
    )


def suggestion(name: str, known: frozenset[str]) -> str:
    """``; did you mean …?`` where ``name`` nearly spells one of ``known``."""
    near = nearest(name, sorted(known))
    return f'; did you mean "{near}"?' if near else ""


def _decode(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise SettingsError("a % that is not followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeError:
        raise SettingsError("a percent-code that is not UTF-8") from None
    if "\0" in decoded:
        raise SettingsError("holds a NUL")
    return decoded


def compose(parameters: Mapping[str, str]) -> str:
    """Write libpq keywords as a URL; :func:`parse` reads the same keywords from it.

    Everything but login, one host, its port and the database goes behind the ``?``, so that folders of
    sockets, lists and empty values need no rule of their own.
    """
    rest = dict(parameters)
    login = ""
    if rest.get("user"):
        login = quote(rest.pop("user"), safe="")
        if "password" in rest:
            login += ":" + quote(rest.pop("password"), safe="")
        login += "@"
    authority = ""
    host = rest.get("host", "")
    if re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host) and valid_port(rest.get("port", "1")):
        authority = f"[{host}]" if ":" in host else host
        del rest["host"]
        if "port" in rest:
            authority += ":" + rest.pop("port")
    database = quote(rest.pop("dbname"), safe="") if rest.get("dbname") else ""
    query = "&".join(f"{keyword}={quote(value, safe='/,:')}" for keyword, value in rest.items())
    return f"postgresql://{login}{authority}/{database}" + (f"?{query}" if query else "")
