"""Connection strings, as ADO.NET and as PostgreSQL write them, turned into libpq's keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from relaymail.settings import ado_net, postgres_url
from relaymail.settings.errors import SettingsError
from relaymail.settings.secret import HIDDEN

_SECRETS = frozenset({"password", "sslpassword"})


@final
class ConnectionString:
    """A parsed connection string; its ``repr`` and ``str`` hold no password."""

    __slots__ = ("_parameters", "pool_size")

    pool_size: int | None
    """Connections the string allows (``Maximum Pool Size``), if it says so."""

    def __init__(self, parameters: Mapping[str, str], *, pool_size: int | None = None) -> None:
        """Hold libpq ``parameters``: ``host``, ``port``, ``dbname``, ``user``, ``password`` and others."""
        self._parameters = dict(parameters)
        self.pool_size = pool_size

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """Read ``Host=…;Database=…`` (ADO.NET) or ``postgresql://…``.

        Raises :class:`SettingsError`, whose message holds no value of the string, for anything else.
        """
        text = text.strip()
        if not text:
            raise SettingsError("empty")
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise SettingsError("holds a NUL or bytes that are not UTF-8")
        scheme, mark, _ = text.partition("://")
        if mark and scheme.replace("+", "").isalnum():
            if scheme.lower() not in postgres_url.SCHEMES:
                raise SettingsError("a URL of another scheme than postgresql://")
            return cls(postgres_url.parse(text))
        parameters, pool_size = ado_net.parse(text)
        return cls(parameters, pool_size=pool_size)

    def parameters(self) -> dict[str, str]:
        """libpq keywords and values, password included; ``host`` and ``port`` may hold several, with commas.

        Where several hosts are given and nothing is said about their roles, only one that takes writes is
        used.
        """
        parameters = dict(self._parameters)
        if "," in parameters.get("host", ""):
            parameters.setdefault("target_session_attrs", "read-write")
        return parameters

    def url(self) -> str:
        """As a ``postgresql://`` URL that psql takes, password included."""
        return postgres_url.compose(self._parameters)

    def redacted(self) -> str:
        """As libpq keywords, for people: passwords are ``***``."""
        return " ".join(f"{k}={HIDDEN if k in _SECRETS else _quoted(v)}" for k, v in self._parameters.items())

    def __repr__(self) -> str:
        return f"ConnectionString({self.redacted()})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConnectionString):
            return NotImplemented
        return (self._parameters, self.pool_size) == (other._parameters, other.pool_size)

    def __hash__(self) -> int:
        return hash((tuple(sorted(self._parameters.items())), self.pool_size))


def _quoted(value: str) -> str:
    """As libpq's keyword/value form wants it."""
    if value and not any(c.isspace() or c in "'\\" for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
