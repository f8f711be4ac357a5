"""Connection strings as .NET's ``DbConnectionStringBuilder`` and Npgsql read them, as libpq's keywords."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relaymail.settings.errors import SettingsError
from relaymail.settings.postgres_url import SSL_MODES, shown_word, suggestion, valid_port

_SYNONYMS = {
    "host": "host server datasource",
    "port": "port",
    "dbname": "database db initialcatalog",
    "user": "username userid user uid",
    "password": "password pwd psw",
    "passfile": "passfile",
    "sslmode": "sslmode",
    "sslnegotiation": "sslnegotiation",
    "sslrootcert": "rootcertificate",
    "sslcert": "sslcertificate",
    "sslkey": "sslkey",
    "sslpassword": "sslpassword",
    "channel_binding": "channelbinding",
    "require_auth": "requireauth",
    "gssencmode": "gssencryptionmode",
    "krbsrvname": "kerberosservicename",
    "connect_timeout": "timeout connectiontimeout connecttimeout",
    "application_name": "applicationname",
    "keepalives": "tcpkeepalive",
    "keepalives_idle": "keepalive tcpkeepalivetime",
    "keepalives_interval": "tcpkeepaliveinterval",
    "target_session_attrs": "targetsessionattributes",
    "load_balance_hosts": "loadbalancehosts",
    "search_path": "searchpath",
    "options": "options",
    "pool_size": "maximumpoolsize maxpoolsize",
}
_KEYWORDS = {synonym: keyword for keyword, synonyms in _SYNONYMS.items() for synonym in synonyms.split()}

# What Npgsql knows and has no meaning here: its pool, its buffers, its types, .NET's transactions.
_IRRELEVANT = """
    trustservercertificate checkcertificaterevocation pooling minimumpoolsize minpoolsize
    connectionidlelifetime
    connectionpruninginterval connectionlifetime loadbalancetimeout commandtimeout internalcommandtimeout
    cancellationtimeout persistsecurityinfo logparameters includeerrordetail includeerrordetails
    includefailedbatchedstatement includerealm integratedsecurity enlist encoding clientencoding timezone
    readbuffersize writebuffersize buffersize socketreceivebuffersize socketsendbuffersize maxautoprepare
    autoprepareminusages noresetonclose loadtablecomposites replicationmode arraynullabilitymode multiplexing
    writecoalescingbufferthresholdbytes writecoalescingdelayus servercompatibilitymode convertinfinitydatetime
    eftemplatedatabase efadmindatabase hostrecheckseconds useperfcounters usesslstream backendtimeouts
    clientcertificate clientcertificatekey continueprocessing preloadreader useextendedtypes syncnotification
    protocol ssl
"""
_PASSED_OVER = frozenset(_IRRELEVANT.split())
_USUAL = """
    Host Server Port Database Username UserId Password SslMode RootCertificate SslCertificate SslKey Timeout
    ApplicationName Keepalive SearchPath Options MaximumPoolSize Pooling CommandTimeout
    TargetSessionAttributes TrustServerCertificate IncludeErrorDetail MinimumPoolSize
"""
_SPOKEN = frozenset(_USUAL.split())

_SESSIONS = {
    "any": "any",
    "primary": "primary",
    "preferprimary": "primary",
    "standby": "standby",
    "preferstandby": "prefer-standby",
    "readwrite": "read-write",
    "readonly": "read-only",
}


def parse(text: str) -> tuple[dict[str, str], int | None]:
    """Read ``text`` into libpq keywords and the pool's size, if it names one.

    Where a keyword comes twice the last counts; an empty value unsets it, as in .NET.
    Raises :class:`SettingsError`, which names the keyword and never shows a value.
    """
    values: dict[str, str] = {}
    for name, value in _pairs(text):
        plain = name.casefold().replace(" ", "").replace("_", "")
        keyword = _KEYWORDS.get(plain)
        if keyword is None:
            if plain not in _PASSED_OVER:
                raise SettingsError(f"unknown keyword {shown_word(name)}{suggestion(name, _SPOKEN)}")
        elif value:
            values[keyword] = _libpq(keyword, name, value)
        else:
            values.pop(keyword, None)
    return _joined(values)


def _joined(values: dict[str, str]) -> tuple[dict[str, str], int | None]:
    """Bring together what several keywords say of one thing."""
    if "host" not in values:
        raise SettingsError("no Host")
    pool = values.pop("pool_size", None)
    path = values.pop("search_path", None)
    if path is not None:
        escaped = path.replace("\\", "\\\\").replace(" ", "\\ ")
        values["options"] = f"{values.get('options', '')} -csearch_path={escaped}".strip()
    if values.get("keepalives_idle") == "0":
        del values["keepalives_idle"]
    hosts, ports = _hosts(values.pop("host"), values.pop("port", ""))
    return {"host": hosts, **({"port": ports} if ports else {}), **values}, int(pool) if pool else None


def _hosts(text: str, port: str) -> tuple[str, str]:
    """``a:5433,b`` and a common port, as libpq's two lists."""
    hosts, ports = [], []
    for item in (part.strip() for part in text.split(",")):
        host, own = item, port
        if item.startswith("["):
            host, bracket, behind = item[1:].partition("]")
            if not bracket or (behind and not behind.startswith(":")):
                raise SettingsError("Host has an unclosed bracket")
            own = behind[1:] or port
        elif not item.startswith(("/", "@")) and item.count(":") == 1:
            host, _, own = item.partition(":")
        if not host or any(c.isspace() for c in host) or "=" in host:
            raise SettingsError(
                "Host is not a host name, an address or a folder of sockets, or several of them with commas; "
                "keywords are separated by semicolons"
            )
        if own and not valid_port(own):
            raise SettingsError("Host has a port outside of 1 to 65535")
        hosts.append(host)
        ports.append(own)
    if not any(ports):
        return ",".join(hosts), ""
    return ",".join(hosts), ports[0] if len(set(ports)) == 1 else ",".join(ports)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Split ``text`` by ``DbConnectionStringBuilder``'s rules.

    Keywords and bare values lose the blanks around them; a value in single or double quotes is taken as it
    is, its own quote doubled; ``==`` in a keyword is one ``=``.
    """
    at, part = 0, 0
    while True:
        while at < len(text) and (text[at] == ";" or text[at].isspace()):
            at += 1
        if at == len(text):
            return
        part += 1
        name, at = _name(text, at, part)
        while at < len(text) and text[at].isspace():
            at += 1
        if text[at : at + 1] in ("'", '"'):
            value, at = _quoted_value(text, at, part)
        else:
            end = text.find(";", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end].rstrip(), end
            if value.endswith(("'", '"')) or any(c < " " or c == "\x7f" for c in value):
                raise SettingsError(
                    f"part {part}: a value that ends with a quote or holds controls must be in quotes"
                )
        yield name, value


def _name(text: str, at: int, part: int) -> tuple[str, int]:
    """The keyword at ``at`` and the position behind its ``=``."""
    pieces = []
    while True:
        equals = text.find("=", at)
        piece = text[at : equals if equals >= 0 else len(text)]
        if equals < 0 or ";" in piece:
            raise SettingsError(
                f"part {part} has no = (values that hold ; or begin with = must be in quotes)"
            )
        pieces.append(piece)
        at = equals + 1
        if text[at : at + 1] != "=":
            break
        pieces.append("=")
        at += 1
    name = "".join(pieces).strip()
    if not name or any(c < " " or c == "\x7f" for c in name):
        raise SettingsError(f"part {part} has no keyword in front of its =")
    return name, at


def _quoted_value(text: str, at: int, part: int) -> tuple[str, int]:
    """The value in quotes at ``at`` and the position behind it and its blanks."""
    quote = text[at]
    pieces = []
    at += 1
    while True:
        end = text.find(quote, at)
        if end < 0:
            raise SettingsError(f"part {part}: a quote that is not closed")
        pieces.append(text[at:end])
        at = end + 1
        if text[at : at + 1] != quote:
            break
        pieces.append(quote)
        at += 1
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] != ";":
        raise SettingsError(f"part {part}: text behind a closing quote")
    return "".join(pieces), at


def _libpq(keyword: str, name: str, value: str) -> str:
    """Npgsql's ``value`` as libpq writes it."""
    change = _CHANGES.get(keyword)
    return value if change is None else change(name, value)


def _choice(**allowed: str) -> Callable[[str, str], str]:
    def change(name: str, value: str) -> str:
        found = allowed.get(value.strip().casefold().replace("-", ""))
        if found is None:
            raise SettingsError(f"{name} is none of {', '.join(dict.fromkeys(allowed.values()))}")
        return found

    return change


def _number(low: int, high: int) -> Callable[[str, str], str]:
    def change(name: str, value: str) -> str:
        value = value.strip()
        if not (value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high):
            raise SettingsError(f"{name} is not a whole number from {low} to {high}")
        return str(int(value))

    return change


_CHANGES = {
    "port": _number(1, 65535),
    "sslmode": _choice(**{mode.replace("-", ""): mode for mode in SSL_MODES}),
    "sslnegotiation": _choice(postgres="postgres", direct="direct"),
    "channel_binding": _choice(disable="disable", prefer="prefer", require="require"),
    "gssencmode": _choice(disable="disable", prefer="prefer", require="require"),
    "require_auth": lambda _name, value: (
        value.casefold().replace("scramsha256", "scram-sha-256").replace(" ", "")
    ),
    "connect_timeout": _number(0, 1024),
    "keepalives": _choice(true="1", false="0"),
    "keepalives_idle": _number(0, 1_000_000),
    "keepalives_interval": _number(0, 1_000_000),
    "target_session_attrs": _choice(**_SESSIONS),
    "load_balance_hosts": _choice(true="random", false="disable"),
    "pool_size": _number(1, 100_000),
}
