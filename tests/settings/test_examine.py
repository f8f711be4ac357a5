"""Settings that may be wrong, looked at by who goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymail.settings import SettingsError, examine, load
from relaymail.settings.kinds import HostAndPort


def test_everything_that_is_wrong_and_the_rest_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"Smtp": {"Port": "many", "SecurePort": 4650}}')
    examined = examine(file, {"HealthCheck__Url": "ftp://x", "Data__Directory": "/somewhere"})
    assert [error.split(" ", 1)[0] for error in examined.errors] == ["Smtp:Port", "HealthCheck:Url"]
    settings = examined.loaded.settings
    assert (settings.smtp.port, settings.smtp.secure_port) == (587, 4650)
    assert settings.data.directory == Path("/somewhere")
    with pytest.raises(SettingsError) as raised:
        load(file, {"HealthCheck__Url": "ftp://x"})
    assert tuple(raised.value.errors) == examined.errors


def test_a_file_that_cannot_be_read_leaves_the_environment(tmp_path: Path) -> None:
    examined = examine(tmp_path / "nosuch.json", {"Smtp__Port": "2500"})
    assert "cannot be read" in examined.errors[0]
    assert examined.loaded.settings.smtp.port == 2500


def test_variables_that_contradict_each_other_are_an_error_among_others() -> None:
    examined = examine(None, {"SMTP__PORT": "1", "Smtp__Port": "2", "Smtp__SecurePort": "x"})
    assert len(examined.errors) == 2


def test_what_was_given_for_another_program_can_be_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"Notify": {"Email": {"Host": "file.example.test", "Port": 25}}}')
    examined = examine(file, {"EMAIL__SMTP__HOST": "env.example.test", "Notify__Email__Port": "26"})
    given = {
        key: examined.given(key) for key in ("Email:Smtp:Host", "notify:email:host", "Notify:Email:Port")
    }
    assert {key: value.text for key, value in given.items() if value} == {
        "Email:Smtp:Host": "env.example.test",
        "notify:email:host": "file.example.test",
        "Notify:Email:Port": "26",
    }
    assert examined.given("Smtp:Host") is None
    assert examined.given("Notify:Email") is None
    assert (examined.errors, examined.loaded.warnings) == ((), [])


@pytest.mark.parametrize("section", ["Smtp", "Email__Smtp", "Notify__Email"])
def test_the_settings_of_a_client_are_passed_over(section: str) -> None:
    names = ("Host", "UseSsl", "Username", "Password")
    loaded = load(None, {f"{section}__{name}": "1" for name in names} | {f"{section}__Port": "2587"})
    assert loaded.warnings == []


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("mx.example.com", HostAndPort("mx.example.com", 25)),
        ("mx.example.com:2525", HostAndPort("mx.example.com", 2525)),
        ("192.0.2.1:26", HostAndPort("192.0.2.1", 26)),
        ("[2001:db8::1]:26", HostAndPort("2001:db8::1", 26)),
    ],
)
def test_the_target_of_outgoing_connections(text: str, target: HostAndPort) -> None:
    assert load(None, {"Doctor__OutboundTarget": text}).settings.doctor.outbound_target == target
    assert load(None, {"Doctor__OutboundTarget": str(target)}).settings.doctor.outbound_target == target


@pytest.mark.parametrize("text", ["mx.example.com:0", "mx.example.com:x", "a b", "http://x", "[::1"])
def test_a_target_that_is_none(text: str) -> None:
    with pytest.raises(SettingsError, match="Doctor:OutboundTarget"):
        load(None, {"Doctor__OutboundTarget": text})
