"""What is said of a mail to hosts that offer this and that, and who cannot have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relaymail.smtp.client_capabilities import Capabilities, of_ehlo, of_helo
from relaymail.smtp.client_envelope import Plan, plan
from relaymail.smtp.client_mail import Mail, MailRecipient
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_tls import ClientTLSFacts

VERIFIED = ClientTLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "roots")


def offering(*lines: str) -> Capabilities:
    return of_ehlo(RemoteReply(250, None, ("mx.example.test", *lines)))


def planned(mail: Mail, *offered: str, tls: ClientTLSFacts | None = None) -> Plan:
    return plan(mail, offering(*offered), tls)


def mail(**facts: Any) -> Mail:
    recipients = facts.pop("recipients", (MailRecipient("user@example.test"),))
    return Mail(facts.pop("sender", "sender@example.org"), recipients, facts.pop("size", 1000), **facts)


def to(*addresses: str, **parameters: str) -> tuple[MailRecipient, ...]:
    return tuple(MailRecipient(address, parameters) for address in addresses)


def test_reads_what_a_host_offers() -> None:
    offered = offering("SIZE 1000", "auth plain login", "AUTH=LOGIN SCRAM-SHA-256", "X-THING a=b", "%%%", "")
    assert offered.name == "mx.example.test"
    assert offered.extended
    assert offered.size_limit == 1000
    assert set(offered.mechanisms) == {"PLAIN", "LOGIN", "SCRAM-SHA-256"}
    assert offered.offers("X-THING")
    assert not offered.offers("PIPELINING")
    assert not of_helo(RemoteReply(250, None, ("Mx.Example.Test. hello",))).extended
    assert of_helo(RemoteReply(250, None, ("Mx.Example.Test. hello",))).name == "mx.example.test"
    assert of_helo(RemoteReply(250, None, ("",))).name == ""


@pytest.mark.parametrize(
    ("line", "limit"),
    [("SIZE", None), ("SIZE 0", None), ("SIZE a lot", None), ("SIZE -1", None), ("SIZE 10", 10)],
)
def test_a_limit_that_is_none_does_not_count(line: str, limit: int | None) -> None:
    assert offering(line).size_limit == limit


def test_reads_limits() -> None:
    assert offering("LIMITS RCPTMAX=20 mailmax=5 RCPTDOMAINMAX=x").most_messages == 5
    assert offering("LIMITS").most_messages is None
    assert offering("LIMITS MAILMAX=many").most_messages is None
    assert offering("SIZE").most_messages is None


def test_says_nothing_that_is_not_offered() -> None:
    said = planned(
        mail(parameters={"RET": "HDRS", "ENVID": "x", "MT-PRIORITY": "3", "HOLDFOR": "5", "SIZE": "1"})
    )
    assert said.mail == b"MAIL FROM:<sender@example.org>\r\n"
    assert said.recipients == {0: b"RCPT TO:<user@example.test>\r\n"}
    assert not said.dsn


def test_says_size_and_body() -> None:
    eight_bit = mail(eight_bit=True)
    assert planned(eight_bit, "SIZE", "8BITMIME").mail == (
        b"MAIL FROM:<sender@example.org> SIZE=1000 BODY=8BITMIME\r\n"
    )
    assert b"BODY" not in planned(mail(), "8BITMIME").mail
    assert b"BODY=8BITMIME" in planned(mail(utf8_header=True), "8BITMIME").mail


def test_passes_dsn_parameters_on_where_they_are_offered() -> None:
    given = mail(
        parameters={"RET": "HDRS", "ENVID": "abc+2B", "MT-PRIORITY": "3", "HOLDFOR": "5"},
        recipients=to("a@example.test", NOTIFY="SUCCESS,FAILURE", ORCPT="rfc822;a@example.test"),
    )
    said = planned(given, "DSN", "MT-PRIORITY", "FUTURERELEASE 100 x", "SIZE")
    assert said.mail == b"MAIL FROM:<sender@example.org> SIZE=1000 RET=HDRS ENVID=abc+2B\r\n"
    assert said.recipients[0] == (
        b"RCPT TO:<a@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@example.test\r\n"
    )
    assert said.dsn


def test_a_parameter_cannot_smuggle_a_command() -> None:
    given = mail(
        parameters={"ENVID": "x\r\nRSET", "RET": "FULL"},
        recipients=to("a@example.test", NOTIFY="NEVER X=1", ORCPT="rfc822;a\r\nDATA"),
    )
    said = planned(given, "DSN")
    assert said.mail == b"MAIL FROM:<sender@example.org> RET=FULL\r\n"
    assert said.recipients[0] == b"RCPT TO:<a@example.test>\r\n"


@pytest.mark.parametrize(
    "address", ["a\r\nRSET\r\n@example.test", "a b@example.test", "a@ex ample", "a", "a@b>x"]
)
def test_an_address_cannot_smuggle_a_command(address: str) -> None:
    said = planned(mail(recipients=to("good@example.test", address)))
    assert set(said.recipients) == {0}
    assert said.refusals[1].status == "5.1.3"
    assert said.refusals[1].verdict == "failed"
    said = planned(mail(sender=address))
    assert not said.recipients
    assert said.refusals[0].status == "5.1.7"


def test_the_null_sender_and_quoted_local_parts() -> None:
    said = planned(mail(sender="", recipients=to('"a b\\"c"@example.test')))
    assert said.mail == b"MAIL FROM:<>\r\n"
    assert said.recipients[0] == b'RCPT TO:<"a b\\"c"@example.test>\r\n'


def test_a_message_over_the_limit_fails_here() -> None:
    said = planned(mail(recipients=to("a@example.test", "b@example.test")), "SIZE 999")
    assert not said.recipients
    assert [said.refusals[n].status for n in (0, 1)] == ["5.3.4", "5.3.4"]
    assert said.refusals[0].phase == "local"
    assert planned(mail(), "SIZE 1000").recipients


@pytest.mark.parametrize(
    ("facts", "offered", "conversion"),
    [
        ({}, (), None),
        ({"eight_bit": True}, (), "7bit"),
        ({"eight_bit": True}, ("8BITMIME",), None),
        ({"utf8_header": True}, (), None),
        ({"binary": True}, (), "7bit"),
        ({"binary": True}, ("8BITMIME",), "8bit"),
        ({"binary": True}, ("8BITMIME", "CHUNKING"), "8bit"),
        ({"binary": True}, ("8BITMIME", "BINARYMIME"), "8bit"),
        ({"binary": True}, ("CHUNKING", "BINARYMIME"), None),
    ],
)
def test_tells_what_has_to_be_converted(
    facts: dict[str, bool], offered: tuple[str, ...], conversion: str | None
) -> None:
    said = planned(mail(**facts), *offered)
    assert said.conversion == conversion
    assert said.chunks == (facts.get("binary", False) and conversion is None)


def test_binary_goes_in_chunks() -> None:
    said = planned(mail(binary=True), "CHUNKING", "BINARYMIME", "SIZE")
    assert said.mail == b"MAIL FROM:<sender@example.org> SIZE=1000 BODY=BINARYMIME\r\n"
    assert not planned(mail(), "CHUNKING", "BINARYMIME").chunks


class TestInternationalMail:
    sender = "søren@example.org"

    def test_is_said_where_it_is_needed_only(self) -> None:
        asked = {"SMTPUTF8": None}
        assert planned(mail(sender=self.sender, parameters=asked), "SMTPUTF8", "8BITMIME").mail == (
            "MAIL FROM:<søren@example.org> BODY=8BITMIME SMTPUTF8\r\n".encode()
        )
        assert b"SMTPUTF8" not in planned(mail(parameters=asked), "SMTPUTF8", "8BITMIME").mail
        assert b"SMTPUTF8" in planned(mail(parameters=asked, utf8_header=True), "SMTPUTF8", "8BITMIME").mail
        one_of_two = mail(recipients=to("a@example.test", "ø@example.test"))
        assert b"SMTPUTF8" in planned(one_of_two, "SMTPUTF8").mail

    def test_fails_where_it_is_not_offered(self) -> None:
        said = planned(mail(sender=self.sender))
        assert (said.refusals[0].status, said.refusals[0].verdict) == ("5.6.7", "failed")
        said = planned(mail(parameters={"SMTPUTF8": None}, utf8_header=True), "8BITMIME")
        assert said.refusals[0].status == "5.6.7"

    def test_fails_for_the_recipient_who_needs_it(self) -> None:
        said = planned(mail(recipients=to("a@example.test", "ø@example.test", "b@example.test")))
        assert set(said.recipients) == {0, 2}
        assert said.refusals[1].status == "5.6.7"

    def test_a_domain_has_a_spelling_in_ascii(self) -> None:
        said = planned(mail(sender="a@bücher.example", recipients=to("b@straße.example")))
        assert said.mail == b"MAIL FROM:<a@xn--bcher-kva.example>\r\n"
        assert said.recipients[0].isascii()
        assert b"SMTPUTF8" not in said.mail
        with_utf8 = planned(mail(sender="a@bücher.example"), "SMTPUTF8")
        assert with_utf8.mail == "MAIL FROM:<a@bücher.example> SMTPUTF8\r\n".encode()

    def test_raw_octets_in_the_header_of_old_mail_do_not_need_it(self) -> None:
        assert planned(mail(utf8_header=True), "8BITMIME").recipients

    def test_an_original_recipient_is_written_in_ascii(self) -> None:
        given = mail(recipients=to("a@example.test", ORCPT="utf-8;ø\U0001f600@example.test"))
        assert planned(given, "DSN").recipients[0] == (
            b"RCPT TO:<a@example.test> ORCPT=utf-8;\\x{F8}\\x{1F600}@example.test\r\n"
        )
        # A command to which SMTPUTF8 was not said is ASCII, whatever the host offers
        assert planned(given, "DSN", "SMTPUTF8").mail.endswith(b"<sender@example.org>\r\n")
        assert planned(given, "DSN", "SMTPUTF8").recipients[0].isascii()
        international = replace(given, reverse_path="ø@example.org")
        assert "ORCPT=utf-8;ø".encode() in planned(international, "DSN", "SMTPUTF8").recipients[0]


class TestRequireTLS:
    mail = mail(parameters={"REQUIRETLS": None})

    def test_is_passed_on_under_verified_tls(self) -> None:
        assert planned(self.mail, "REQUIRETLS", tls=VERIFIED).mail.endswith(b" REQUIRETLS\r\n")

    @pytest.mark.parametrize(
        ("offered", "tls"),
        [
            (("REQUIRETLS",), None),
            ((), VERIFIED),
            (("REQUIRETLS",), replace(VERIFIED, verified_by="nothing")),
        ],
    )
    def test_fails_otherwise(self, offered: tuple[str, ...], tls: ClientTLSFacts | None) -> None:
        said = planned(self.mail, *offered, tls=tls)
        assert not said.recipients
        assert said.refusals[0].status == "5.7.30"
