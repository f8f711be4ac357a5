"""Who may log in, when, and what wrong passwords cost, and whom."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from uuid import uuid4

import bcrypt
import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.end_to_end.wire import Answer, Closed, Wire
from tests.support.polling import until

_addresses = count(10)


@pytest.fixture
def client() -> str:
    """A client address that no other test has used: failures are counted per address."""
    return f"127.0.1.{next(_addresses)}"


@pytest.fixture
def user(host: Host) -> User:
    """A user of the test's own."""
    return host.user()


@pytest.fixture
def wire(host: Host, client: str) -> Iterator[Wire]:
    """A submission session under TLS, before the login."""
    with connected(host, client) as wire:
        yield wire


def connected(host: Host, client: str) -> Wire:
    """A submission session under TLS from this address."""
    wire = Wire(host.ports.submission, source=client)
    wire.hello()
    wire.starttls()
    return wire


def log_in(host: Host, client: str, logins: list[tuple[str, str]]) -> list[Answer]:
    """The replies to several logins, each in a session of its own, at the same time."""

    def reply(login: tuple[str, str]) -> Answer:
        with connected(host, client) as wire:
            return wire.login(*login)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(reply, logins))


def other_client(client: str) -> str:
    """Another address that no other test uses."""
    return client.replace("127.0.1.", "127.0.2.")


def encoded(text: str) -> str:
    """In base64."""
    return base64.b64encode(text.encode()).decode()


def test_587_takes_no_password_before_tls(host: Host, user: User, client: str) -> None:
    with Wire(host.ports.submission, source=client) as wire:
        assert not any(line.startswith("AUTH") for line in wire.hello().lines)
        assert wire.login(user.address, user.key).start == "538 5.7.11"
        assert wire.command("AUTH LOGIN").start == "538 5.7.11"
        assert wire.command("MAIL FROM:<a@b.example>").start == "530 5.7.0"
        wire.starttls()
        assert wire.command("MAIL FROM:<a@b.example>").start == "530 5.7.0"
        assert wire.login(user.address, user.key).start == "235 2.7.0"


def test_the_mx_takes_no_password_at_all(host: Host, user: User) -> None:
    with host.mx() as wire:
        assert wire.login(user.address, user.key).start == "502 5.5.1"
        wire.starttls()
        assert not any(line.startswith("AUTH") for line in wire.hello().lines)
        assert wire.login(user.address, user.key).start == "502 5.5.1"


def test_the_login_name_is_the_address_in_any_case(wire: Wire, user: User) -> None:
    assert wire.login(user.address.upper(), user.key).start == "235 2.7.0"
    assert wire.login(user.address, user.key).start == "503 5.5.1"


def test_auth_login_with_and_without_an_initial_response(host: Host, user: User, client: str) -> None:
    for initial in (False, True):
        with connected(host, client) as wire:
            if initial:
                answer = wire.command(f"AUTH LOGIN {encoded(user.address)}")
            else:
                assert wire.command("auth login").lines == (encoded("Username:"),)
                answer = wire.command(encoded(user.address))
            assert answer.lines == (encoded("Password:"),)
            assert wire.command(encoded(user.key)).start == "235 2.7.0"


def test_auth_plain_in_two_steps_and_with_an_authorization_identity(
    host: Host, user: User, client: str
) -> None:
    for identity in ("", user.address.upper()):
        with connected(host, client) as wire:
            assert wire.command("AUTH PLAIN").code == 334
            assert wire.command(encoded(f"{identity}\0{user.address}\0{user.key}")).start == "235 2.7.0"


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        (["AUTH PLAIN", "*"], ["334 ", "501 5.7.0"]),
        (["AUTH PLAIN !!!"], ["501 5.5.2"]),
        (["AUTH PLAIN ="], ["535 5.7.8"]),
        (["AUTH LOGIN", "=", "="], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "535 5.7.8"]),
        (["AUTH"], ["501 5.5.4"]),
        (["AUTH CRAM-MD5"], ["504 5.5.4"]),
        (["AUTH PLAIN " + encoded("a\0b")], ["535 5.7.8"]),
        (["AUTH PLAIN " + encoded("other@example.test\0b@example.test\0c")], ["535 5.7.8"]),
        (["AUTH PLAIN " + base64.b64encode(b"\0\xff\xfe\0\xff").decode()], ["535 5.7.8"]),
        (["AUTH PLAIN", "A" * 20_000], ["334 ", "500 5.5.6"]),
        (["AUTH PLAIN " + encoded("\0b@example.test\0" + "k" * 5000)], ["535 5.7.8"]),
    ],
)
def test_odd_exchanges_end_with_the_right_reply(wire: Wire, lines: list[str], answers: list[str]) -> None:
    assert [wire.command(line).start for line in lines] == answers
    assert wire.command("NOOP").start == "250 2.0.0"


def test_what_fails_and_what_does_not_exist_look_the_same(host: Host, user: User, client: str) -> None:
    other_scope, revoked = host.user(), host.user()
    host.rows('UPDATE public."SmtpApiKeys" SET "Scopes" = \'["imap"]\' WHERE "UserId" = %s', other_scope.id)
    host.rows('UPDATE public."SmtpApiKeys" SET "RevokedAt" = now() WHERE "UserId" = %s', revoked.id)
    logins = [
        (user.address, "wrong"),
        ("nobody@example.test", user.key),
        (other_scope.address, other_scope.key),
        (revoked.address, revoked.key),
        (user.address, "k" * 100),
    ]
    # An empty password is from another client: five failures are all that one has
    answers = [*log_in(host, client, logins), *log_in(host, other_client(client), [(user.address, "")])]
    assert {(answer.code, answer.text) for answer in answers} == {
        (535, "5.7.8 Authentication credentials invalid")
    }


def test_wrong_passwords_lock_out_their_client_and_nobody_else(host: Host, user: User, client: str) -> None:
    answers = log_in(host, client, [(user.address, "wrong")] * 5)
    assert [answer.start for answer in answers] == ["535 5.7.8"] * 5
    with connected(host, client) as wire:
        # Not even with the right one: the reply must not tell that it is
        assert wire.login(user.address, user.key).start == "421 4.7.0"
        with pytest.raises(Closed):
            wire.reply()
    with connected(host, other_client(client)) as wire:
        assert wire.login(user.address, user.key).start == "235 2.7.0"


def test_a_key_without_a_prefix_is_tried_too(host: Host, wire: Wire, user: User) -> None:
    host.rows('UPDATE public."SmtpApiKeys" SET "KeyPrefix" = NULL WHERE "UserId" = %s', user.id)
    assert wire.login(user.address, user.key).start == "235 2.7.0"


def test_keys_of_the_command_line_work_until_it_revokes_them(host: Host, user: User, client: str) -> None:
    made = json.loads(host.cli("key", "create", user.address, "--name", "laptop", "--json"))
    with connected(host, client) as wire:
        assert wire.login(user.address, made["key"]).start == "235 2.7.0"
    host.cli("key", "revoke", made["id"])
    with connected(host, client) as wire:
        assert wire.login(user.address, made["key"]).start == "535 5.7.8"


def test_the_use_of_a_key_is_written_down(host: Host, wire: Wire, user: User) -> None:
    wire.login(user.address, user.key)
    used = 'SELECT "LastUsedAt" FROM public."SmtpApiKeys" WHERE "UserId" = %s'
    until(lambda: host.row(used, user.id) != (None,))


def test_nobody_sends_as_somebody_else(host: Host, user: User, demo: User) -> None:
    with host.submission(user) as wire:
        for sender in (demo.address, f"x{user.address}", "anyone@elsewhere.example"):
            answer = wire.command(f"MAIL FROM:<{sender}>")
            assert answer == (550, ("5.7.1 Sender not permitted for this login (MAIL FROM)",))
            for reverse_path in (user.address, ""):
                answer = wire.message(message(sender=sender), reverse_path, demo.address)
                assert answer == (550, ("5.7.1 Sender not permitted for this login (From header)",))
        assert wire.message(message(sender=user.address), user.address, demo.address).code == 250


def test_a_granted_address_and_domain_may_be_sent_as(host: Host, user: User, demo: User) -> None:
    host.cli("user", "grant", user.address, "@grants.example")
    host.cli("user", "grant", user.address, "one@other.example")
    with host.submission(user) as wire:
        for sender in ("anyone@Grants.Example", "ONE@other.example"):
            raw = message(sender=f"Somebody <{sender}>")
            assert wire.message(raw, sender, demo.address).code == 250
            assert wire.message(raw, user.address, demo.address).code == 250
        assert wire.command("MAIL FROM:<two@other.example>").start == "550 5.7.1"
        assert wire.command("MAIL FROM:<x@sub.grants.example>").start == "550 5.7.1"


def test_a_hash_that_is_none_costs_only_its_own_login(host: Host, wire: Wire, user: User) -> None:
    host.rows(
        'INSERT INTO public."SmtpApiKeys" ("Id", "UserId", "Name", "KeyHash", "KeyPrefix", "Scopes",'
        " \"CreatedAt\") VALUES (%s, %s, 'broken', 'no hash', NULL, '[\"smtp\"]', now())",
        uuid4(),
        user.id,
    )
    assert wire.login(user.address, user.key).start == "235 2.7.0"


def test_passwords_do_not_get_into_the_log(host: Host, client: str) -> None:
    user = host.user()
    wrong = "wrong-" + bcrypt.gensalt(4).decode()
    with connected(host, client) as wire:
        wire.login(user.address, wrong)
        wire.login(user.address, user.key)
        wire.command(f"AUTH PLAIN {encoded(wrong)}x")
        wire.command(f"{wrong}")
    for secret in (user.key, wrong, encoded(wrong), encoded(f"\0{user.address}\0{user.key}")):
        assert secret not in host.log
