"""MTA-STS as text: the TXT record, the policy, and which hosts a policy names (RFC 8461 3). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

LONGEST_AGE: Final = 31_557_600
"""Seconds, about a year: the most a policy may ask to be kept (RFC 8461 3.2); more is taken for this."""
LARGEST_POLICY: Final = 64 * 1024
"""Octets of a policy (RFC 8461 3.3)."""
POLICY_PATH: Final = "/.well-known/mta-sts.txt"

Mode = Literal["enforce", "testing", "none"]

_VERSION: Final = "v=STSv1"
_RECORD: Final = re.compile(r"v=STSv1[ \t]*;")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_AGE: Final = re.compile(r"[0-9]{1,10}")
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PATTERN: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")


class PolicyError(ValueError):
    """What was published is no policy; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A domain's policy."""

    mode: Mode
    max_age: int
    """Seconds it may be kept, 0 to :data:`LONGEST_AGE`."""
    mx: tuple[str, ...]
    """Patterns of host names, lower case; a leading ``*`` stands for one label. Empty only in mode none."""

    def names(self, host: str) -> bool:
        """Whether ``host`` is one of the policy's (RFC 8461 4.1), in any case, with a last dot or not."""
        name = host.removesuffix(".").lower()
        label, _, parent = name.partition(".")
        return name in self.mx or (label != "" and f"*.{parent}" in self.mx)


def record_name(domain: str) -> str:
    """Where the TXT record of ``domain`` is (RFC 8461 3.1)."""
    return f"_mta-sts.{domain}"


def policy_host(domain: str) -> str:
    """The web server of the policy of ``domain`` (RFC 8461 3.3)."""
    return f"mta-sts.{domain}"


def parse_records(texts: Sequence[str]) -> str:
    """The id of the policy that the TXT records announce; ``texts`` has each record with its strings joined.

    Records of other kinds are passed over (RFC 8461 3.1).

    :raises PolicyError: there is no record of MTA-STS, more than one, or one without an id.
    """
    records = [text for text in texts if _RECORD.match(text)]
    if len(records) != 1:
        # "v=STSv1" alone is one that forgot its id
        forgotten = any(text.strip() == _VERSION for text in texts)
        raise PolicyError("more than one TXT record" if records else _no_record(forgotten))
    for field in records[0].split(";")[1:]:
        name, _, value = field.strip(" \t").partition("=")
        if name == "id":
            if _ID.fullmatch(value) is None:
                raise PolicyError("the id of the TXT record must be 1 to 32 letters and digits")
            return value
    raise PolicyError("the TXT record has no id")


def _no_record(forgotten: bool) -> str:
    return "the TXT record has no id" if forgotten else "no TXT record of MTA-STS"


def parse_policy(text: str) -> Policy:
    """Read a policy (RFC 8461 3.2). Lines may end in LF or CRLF; unknown fields are passed over.

    :raises PolicyError: it is none.
    """
    fields: dict[str, str] = {}
    mx: list[str] = []
    for line in text.split("\n"):
        name, colon, value = line.removesuffix("\r").partition(":")
        value = value.strip(" \t")
        if not colon and not name.strip(" \t"):
            continue
        if not colon or _FIELD.fullmatch(name) is None:
            raise PolicyError("a line is not of the form 'name: value'")
        if name == "mx":
            mx.append(_pattern(value))
        else:
            # Of a field that comes twice the first counts
            fields.setdefault(name, value)
    if fields.get("version") != "STSv1":
        raise PolicyError("the version is not STSv1")
    mode = _mode(fields.get("mode"))
    if mode != "none" and not mx:
        raise PolicyError("no mx is named")
    return Policy(mode, _age(fields.get("max_age")), tuple(dict.fromkeys(mx)))


def _mode(value: str | None) -> Mode:
    match value:
        case "enforce" | "testing" | "none":
            return value
        case None:
            raise PolicyError("the mode is missing")
        case _:
            raise PolicyError("the mode must be enforce, testing or none")


def _age(value: str | None) -> int:
    if value is None:
        raise PolicyError("max_age is missing")
    if _AGE.fullmatch(value) is None:
        raise PolicyError("max_age must be a number of seconds")
    return min(int(value), LONGEST_AGE)


def _pattern(value: str) -> str:
    if len(value) > 255 or _PATTERN.fullmatch(value) is None:
        raise PolicyError("an mx is neither a host name nor one with a leading '*.'")
    return value.removesuffix(".").lower()
