"""Which known name a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def distance(one: str, other: str) -> int:
    """Edits between two texts: a letter inserted, dropped or changed or two neighbours swapped are one each.

    (Optimal string alignment; texts are compared as they are.)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]


def nearest(name: str, known: Iterable[str], *, long: int = 5) -> str | None:
    """The one of ``known`` that ``name`` nearly spells, in any case, with ``_``, ``-`` and blanks left out.

    At most two edits for known names of ``long`` letters and more, one for shorter ones; else ``None``.
    """
    given = _plain(name)
    if len(given) > 100:
        return None
    best: tuple[int, str] | None = None
    for candidate in known:
        plain = _plain(candidate)
        if abs(len(plain) - len(given)) > 2:
            continue
        edits = distance(given, plain)
        if edits <= (2 if len(plain) >= long else 1) and (best is None or edits < best[0]):
            best = (edits, candidate)
    return best[1] if best else None


def _plain(name: str) -> str:
    return name.casefold().translate({ord("_"): None, ord("-"): None, ord(" "): None})
