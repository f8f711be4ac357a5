"""A dialogue as it is written down: what the client sends, what the server must answer.

One line is one step; README.md beside this file explains the notation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
LISTENERS: Final = {"mx": ("plain", "starttls"), "submission": ("starttls", "implicit")}
"""The listeners, each with the ways a script is run over unless it says otherwise."""
BEGINNINGS: Final = ("connection", "greeting", "ehlo", "login")

_STEP: Final = re.compile(r"([CBS])(?:\*(\d+))?: ?(.*)")
_DIRECTIVE: Final = re.compile(
    r"# ?(listener|over|begin|clock|certificate|fault|setting|host|proxy|others|client|undo): *(.*)"
)
_REPEATED: Final = re.compile(r"\{([^{}]+)\*(\d+)\}")
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Send:
    """One packet, with the names in braces still in it."""

    pieces: tuple[tuple[str, bool], ...]
    """Each with whether it is raw, and not a line that ends in CRLF."""

    def data(self, names: Mapping[str, str]) -> bytes:
        """The octets."""
        return b"".join(
            fill(text, names).encode().decode("unicode_escape").encode("latin-1")
            if raw
            else fill(text, names).encode() + b"\r\n"
            for text, raw in self.pieces
        )


@dataclass(frozen=True)
class Expect:
    """One line of the server."""

    text: str

    def pattern(self, names: Mapping[str, str]) -> re.Pattern[str]:
        """What the line has to match as a whole."""
        return matcher(self.text, names)


@dataclass(frozen=True)
class Do:
    """Something else: a word in capitals, which README.md explains, and what it is about."""

    what: str
    argument: str


Step = Send | Expect | Do


@dataclass
class Script:
    """One file."""

    name: str
    listener: str = "mx"
    over: tuple[str, ...] = ()
    begin: str = "ehlo"
    fake_clock: bool = False
    certificate: str = "there"
    fault: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    proxy: str = ""
    others: int = 0
    client: str = ""
    undo: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def ends_closed(self) -> bool:
        """Whether it sees the connection end."""
        return any(isinstance(step, Do) and step.what == "CLOSED" for step in self.steps)


class ScriptError(ValueError):
    """A line nobody understands."""


def read(path: Path) -> Script:
    """Read a file. Raises :exc:`ScriptError`."""
    script = Script(path.stem)
    packet: list[tuple[str, bool]] = []

    def end_of_packet() -> None:
        if packet:
            script.steps.append(Send(tuple(packet)))
            packet.clear()

    for number, line in enumerate(path.read_text().splitlines(), 1):
        step = _STEP.fullmatch(line)
        if step is not None and step[1] != "S":
            packet.extend([(step[3], step[1] == "B")] * int(step[2] or 1))
            continue
        if not line or line.startswith("#"):
            directive = _DIRECTIVE.fullmatch(line)
            if directive is not None:
                _direct(script, directive[1], directive[2])
            continue
        end_of_packet()
        if step is not None:
            script.steps.extend([Expect(step[3])] * int(step[2] or 1))
        elif re.match(r"(CLOSED|HALF-CLOSE|TLS|DRAIN|SILENCE|PACKET|WAIT [\d.]+|SQL .+|LOG .+)$", line):
            what, _, argument = line.partition(" ")
            if what != "PACKET":
                script.steps.append(Do(what, argument))
        else:
            raise ScriptError(f"{path.name}:{number}: {line!r}")
    end_of_packet()
    if not script.steps:
        raise ScriptError(f"{path.name}: nothing is said")
    script.over = script.over or (("plain",) if script.fake_clock else LISTENERS[script.listener])
    return script


def _direct(script: Script, name: str, value: str) -> None:
    match name:
        case "listener" if value in LISTENERS:
            script.listener = value
        case "begin" if value in BEGINNINGS:
            script.begin = value
        case "over" if set(value.split(", ")) <= {"plain", "starttls", "implicit"}:
            script.over = tuple(value.split(", "))
        case "clock" if value == "fake":
            script.fake_clock = True
        case "certificate" if value in {"none", "lost"}:
            script.certificate = value
        case "fault":
            script.fault = value
        case "setting":
            key, _, text = value.partition("=")
            script.settings[key] = text
        case "host":
            script.settings |= settings_of(value)
        case "proxy":
            script.proxy = value
        case "others":
            script.others = int(value)
        case "client":
            script.client = value
        case "undo":
            script.undo.append(value)
        case _:
            raise ScriptError(f"{script.name}: {name}: {value}")


def settings_of(host: str) -> dict[str, str]:
    """The settings that scripts share by the name of a host."""
    lines = (FOLDER / "settings" / f"{host}.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


def fill(text: str, names: Mapping[str, str]) -> str:
    """``{name}`` by what it stands for, ``{x*3}`` by ``xxx``."""
    text = _REPEATED.sub(lambda match: match[1] * int(match[2]), text)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def matcher(text: str, names: Mapping[str, str]) -> re.Pattern[str]:
    """A line to be matched as a whole: ``...`` is anything, ``{id}`` the id of a message."""
    escaped = re.escape(fill(text, names))
    return re.compile(escaped.replace(re.escape("..."), ".*").replace(re.escape("{id}"), _UUID))


def all_scripts() -> list[Script]:
    """Every script of the folder, those with the same settings behind each other."""
    scripts = [read(path) for path in sorted((FOLDER / "scripts").glob("*.txt"))]
    return sorted(scripts, key=lambda script: sorted(script.settings.items()))
