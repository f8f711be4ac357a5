"""The settings of outbound mail, each on a host of its own."""

from __future__ import annotations

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.end_to_end.outbound import attempts, first_attempt, internet, states, until_state
from tests.end_to_end.wire import Wire
from tests.support.polling import until


def refusal(host: Host, user: User) -> str:
    """What a recipient elsewhere is answered with."""
    with host.submission(user) as wire:
        wire.command(f"MAIL FROM:<{user.address}>")
        return wire.command("RCPT TO:<a@elsewhere.test>").start


def test_nothing_is_taken_that_is_not_sent(new_host: MakeHost) -> None:
    for settings, why in (
        ({"OutboundMail__Enabled": "false"}, "OutboundMail:Enabled is false"),
        ({"Smtp__ServerName": "localhost"}, '"localhost" (OutboundMail:SenderDomain'),
    ):
        host = new_host(settings)
        host.start()
        assert "Outbound mail is off" in host.log
        assert why in host.log
        assert refusal(host, host.user()) == "550 5.7.1"
        assert host.stop() == 0


def test_sessions_without_a_login_reach_nobody_elsewhere(new_host: MakeHost) -> None:
    with internet() as net:
        net.sink("elsewhere.test")
        host = new_host({**net.settings, "Smtp__RequireAuthentication": "false"})
        host.start()
        with Wire(host.ports.submission) as wire:
            wire.hello()
            assert wire.command("MAIL FROM:<a@wherever.test>").code == 250
            assert wire.command("RCPT TO:<a@elsewhere.test>").start == "550 5.7.1"
            assert wire.command(f"RCPT TO:<{host.user().address}>").code == 250


def test_mail_does_not_come_back_to_its_own_host(new_host: MakeHost) -> None:
    with internet() as net:
        host = new_host(net.settings)
        host.environ["OutboundMail__Port"] = str(host.ports.mx)
        net.zones.a("mx.loop.test", "127.0.0.1")
        net.zones.mx("loop.test", "10 mx.loop.test")
        host.start()
        user = host.user()
        message_id = host.submit(message(sender=user.address), user, "a@loop.test")
        until_state(host, message_id, "failed")
        assert attempts(host, message_id)[0][2] == "5.4.6"


def test_retries_end_and_the_sender_is_told(new_host: MakeHost) -> None:
    with internet() as net:
        net.sink("full.test", answer=lambda line: "452 4.2.2 full" if line.startswith("RCPT") else None)
        settings = {key: value for key, value in net.settings.items() if "RetryDelays" not in key}
        host = new_host(
            {**settings, "OutboundMail__MaxRetries": "2", "OutboundMail__RetryBaseDelaySeconds": "1"}
        )
        host.start()
        user = host.user()
        message_id = host.submit(message(sender=user.address), user, "a@full.test")
        until_state(host, message_id, "failed")
        assert [outcome for outcome, *_ in attempts(host, message_id)] == ["deferred", "deferred", "failed"]
        (reply,) = host.row("SELECT last_reply FROM relaymail.queue")
        assert reply == "452 4.2.2 full"
        until(lambda: bool(host.rows("SELECT 1 FROM relaymail.message WHERE listener = 'local'")))


def test_no_more_connections_than_allowed(new_host: MakeHost) -> None:
    with internet() as net:
        sinks = [net.sink(f"d{n}.test") for n in range(4)]
        host = new_host({**net.settings, "OutboundMail__MaxConcurrency": "3"})
        host.start()
        host.rows("INSERT INTO relaymail.destination (destination, max_connections) VALUES ('d0.test', 1)")
        user = host.user()
        for sink in sinks:
            sink.dot.clear()
        for n in range(8):
            host.submit(message(sender=user.address), user, *(f"u{n}@d{d}.test" for d in range(4)))
        until(lambda: sum(sink.open for sink in sinks) == 3)
        for sink in sinks:
            sink.dot.set()
        until(lambda: sum(len(sink.taken) for sink in sinks) == 32)
        assert sum(sink.most_open for sink in sinks) <= 3 * len(sinks)


def test_the_smarthost_gets_it_all_and_nobody_else_the_password(new_host: MakeHost) -> None:
    with internet() as net:
        relay = new_host(fresh=True)
        relay.start()
        net.zones.a("localhost", "127.0.0.1")
        account = relay.user("account", "example.test")
        reader = relay.user("reader", "far.test")
        host = new_host(
            {
                **net.settings,
                "OutboundMail__RelayHost": "localhost",
                "OutboundMail__RelayPort": str(relay.ports.submission),
                "OutboundMail__RelayUsername": account.address,
                "OutboundMail__RelayPassword": account.key,
            }
        )
        host.start()
        user = host.user()
        # The relay takes mail only from its account's own addresses
        relay.cli("user", "grant", "add", account.address, user.address)
        message_id = host.submit(message(sender=user.address), user, reader.address)
        # Its certificate is none that anybody vouches for
        assert first_attempt(host, message_id)[:2] == ("deferred", "starttls")
        host.restart({**host.environ, "SSL_CERT_FILE": str(relay.data / "certificate.pem")})
        until_state(host, message_id, "delivered")
        assert states(host, message_id) == {reader.address: "delivered"}
        (login,) = relay.row("SELECT login_user_id FROM relaymail.message")
        assert login == account.id
        (tls,) = host.row("SELECT tls FROM relaymail.attempts WHERE outcome = 'delivered'")
        assert "roots" in tls
