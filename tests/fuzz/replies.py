"""What every reply must look like, whatever it answers (RFC 5321 4.2 and 4.5.3.1.5, RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 512

_LINE: Final = re.compile(rb"([2-5][0-5][0-9])([ -])([ -~]*)\r\n")
_ENHANCED: Final = re.compile(rb"([245])\.[0-9]{1,3}\.[0-9]{1,3} ")
_WITHOUT_ENHANCED: Final = frozenset({334, 354})


@dataclass(frozen=True)
class Answer:
    """One reply as a client reads it."""

    code: int
    lines: tuple[bytes, ...]
    """The text of each line, the enhanced code included."""

    @property
    def enhanced(self) -> bool:
        """Whether each line has an enhanced status code."""
        return all(_ENHANCED.match(line) for line in self.lines)


def read(data: bytes) -> list[Answer]:
    """All replies of ``data``. Fails where one is malformed or not complete."""
    answers = []
    position = 0
    lines: list[bytes] = []
    code = b""
    while position < len(data):
        match = _LINE.match(data, position)
        assert match is not None, data[position : position + 200]
        assert match.end() - position <= LONGEST_LINE, match[0]
        assert not lines or match[1] == code, data
        code = match[1]
        lines.append(match[3])
        position = match.end()
        if match[2] == b" ":
            answers.append(_checked(Answer(int(code), tuple(lines))))
            lines = []
    assert not lines, data
    return answers


def _checked(answer: Answer) -> Answer:
    if answer.code in _WITHOUT_ENHANCED:
        assert not any(_ENHANCED.match(line) for line in answer.lines)
        return answer
    classes = {match[1] for line in answer.lines if (match := _ENHANCED.match(line))}
    assert classes <= {b"%d" % (answer.code // 100)}, answer
    # Only the greeting and the replies to EHLO and HELO go without
    assert answer.enhanced or (answer.code in {220, 250} and not classes), answer
    return answer
