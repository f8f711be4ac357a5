"""Every dialogue of the folder ``scripts``, over every transport it is meant for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relaymail.smtp import reply
from relaymail.smtp.reply import Reply
from tests.dialogues.hosts import Hosts
from tests.dialogues.players import NOBODY, SERVER, names_for, play_in_memory, play_on_host
from tests.dialogues.script import Expect, Script, ScriptError, all_scripts, read

SCRIPTS = all_scripts()
WAYS = [(script, over) for script in SCRIPTS for over in script.over]

ANY: Any = "..."
MADE = [
    reply.greeting(SERVER),
    reply.stored("{id}"),
    reply.chunk_taken(4),
    reply.syntax("DATA"),
    reply.unsupported_option("FROB"),
    reply.bad_sender(ANY),
    reply.bad_recipient(ANY),
    reply.connecting_too_fast(ANY),
    reply.sending_too_fast("messages", ANY),
    reply.sending_too_fast("recipients", ANY),
]
"""One of each kind of reply that is made when it is needed."""
REPLIES = {
    **{name: value for name, value in vars(reply).items() if isinstance(value, Reply)},
    **{f"made {made.code} {made.text}": made for made in MADE},
}


@pytest.mark.parametrize(("script", "over"), WAYS, ids=[f"{script.name}-{over}" for script, over in WAYS])
def test_dialogue(script: Script, over: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if script.fake_clock:
        play_in_memory(script, tmp_path, over)
    else:
        hosts: Hosts = request.getfixturevalue("hosts")
        play_on_host(script, hosts.get(script.settings), over)


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_is_in_a_dialogue(name: str) -> None:
    wanted = REPLIES[name].data.decode().removesuffix("\r\n")
    names = names_for(NOBODY, SERVER)
    expected = {step for script in SCRIPTS for step in script.steps if isinstance(step, Expect)}
    assert any(step.text == wanted or step.pattern(names).fullmatch(wanted) for step in expected), (
        f"no script has {wanted!r}"
    )


@pytest.mark.parametrize(
    "line", ["X: what", "WAIT long", "# listener: other", "# over: smoke", "# clock: sand"]
)
def test_a_line_that_nobody_understands_is_an_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "script.txt"
    path.write_text(f"{line}\nC: NOOP\n")
    with pytest.raises(ScriptError):
        read(path)


def test_what_differs_fails(tmp_path: Path) -> None:
    for text in (
        "C: NOOP\nS: 250 2.0.0 OK",
        "C: NOOP",
        "C: NOOP\nS: 250 2.0.0 Ok\nCLOSED",
        "SILENCE\nS: 220 ...",
    ):
        path = tmp_path / "script.txt"
        path.write_text(f"# clock: fake\n{text}\n")
        with pytest.raises(AssertionError):
            play_in_memory(read(path), tmp_path, "plain")
