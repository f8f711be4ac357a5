"""Message-ID, In-Reply-To and References (RFC 5322 3.6.4)."""

from __future__ import annotations

import re

from relaymail.message.clean import header_text

MAX_ID = 500
MAX_REFERENCES = 2000

_ANGLED = re.compile(r"<([^<>]*+)>")
_ATEXT = r"[^\s\x00-\x1f\x7f\"(),.:;<>@\[\]\\]++"
_USABLE = re.compile(rf"[^\s\x00-\x1f\x7f\"()<>@]++(?:@(?:{_ATEXT}(?:\.{_ATEXT})*+|\[[!-Z^-~]*+\]))?")


def message_id(value: str) -> str | None:
    """The id without ``<`` and ``>``, at most 500 long; ``None`` when readers could not parse it."""
    found = _first_angled(value)
    if found is None:
        found = value.strip(" \t<>")
    found = header_text(found, MAX_ID).rstrip(".")
    return found if _USABLE.fullmatch(found) else None


def in_reply_to(value: str) -> str | None:
    """The first id of an In-Reply-To field, which may hold prose beside it; ``None`` when there is none."""
    found = _first_angled(value)
    if found is None:
        found = next((word for word in value.split() if "@" in word), "").strip("<>,;")
    return header_text(found, MAX_ID).rstrip(".") or None


def references(value: str) -> str | None:
    """The ids of a References field, as ``<a@b> <c@d>``: as many of the first as fit into 2000 characters."""
    ids = ["".join(found.split()) for found in _ANGLED.findall(value)] or value.replace(",", " ").split()
    kept: list[str] = []
    room = MAX_REFERENCES
    for each in ids:
        cleaned = header_text(each.strip("<>"), MAX_REFERENCES)
        room -= len(cleaned) + 3
        if room < -1:
            break
        if cleaned:
            kept.append(f"<{cleaned}>")
    return " ".join(kept) or None


def _first_angled(value: str) -> str | None:
    """What is between the first ``<`` and ``>``, white space (a fold) removed; ``None`` when nothing is."""
    found = _ANGLED.search(value)
    return "".join(found[1].split()) or None if found else None
