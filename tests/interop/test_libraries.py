"""Libraries that other programs send with: Perl's Net::SMTP and nodemailer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id
from tests.interop.programs import Done, needs, program, run
from tests.interop.stored import all_stored, stored

EIGHT_BIT = (
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
)
GREETING = "Grüße\r\n.\r\n..\r\n"

LISTENERS = pytest.mark.parametrize("listener", ["submission", "submissions"])


# Net::SMTP

PERL = r"""
use strict; use warnings; use Net::SMTP;
my ($port, $implicit, $trust, $user, $key) = @ARGV;
my $smtp = Net::SMTP->new(Host => 'localhost', Port => $port, Hello => 'client.test', Timeout => 30,
    SSL => $implicit, SSL_ca_file => $trust) or die "connect: $@";
if ($trust ne '' && !$implicit) { $smtp->starttls(SSL_ca_file => $trust) or die 'TLS: ' . $smtp->message }
if ($user ne '') { $smtp->auth($user, $key) or die 'AUTH: ' . $smtp->code . ' ' . $smtp->message }
"""
"""What every script begins with; ``run_perl`` gives the arguments."""


def run_perl(script: str, *arguments: str) -> Done:
    """Run a script of Net::SMTP's."""
    perl = program("perl")
    modules = "Net::SMTP with TLS and AUTH is not installed: apt-get install libio-socket-ssl-perl"
    needs(f"{modules} libauthen-sasl-perl", perl, "-MNet::SMTP", "-MIO::Socket::SSL", "-MAuthen::SASL", "-e1")
    return run(perl, "-e", PERL + script, *arguments)


@LISTENERS
def test_net_smtp_submits_several_messages(
    host: Host, user: User, certificate: str, listener: str, tmp_path: Path
) -> None:
    raws = {
        message_id: message(*EIGHT_BIT, body=GREETING, sender=user.address, message_id=message_id)
        for message_id in (new_message_id() for _ in range(3))
    }
    for message_id, raw in raws.items():
        (tmp_path / message_id).write_bytes(raw)
    script = r"""
    for my $file (@ARGV[5 .. $#ARGV]) {
        open my $in, '<:raw', $file or die; my $raw = do { local $/; <$in> };
        $smtp->mail($user, Bits => '8', Return => 'HDRS', ENVID => 'QQ314159', Size => length $raw)
            or die 'MAIL: ' . $smtp->message;
        $smtp->to($user, { Notify => ['SUCCESS', 'DELAY'], ORcpt => "rfc822;$user" }) or die $smtp->message;
        $smtp->data($raw) or die 'DATA: ' . $smtp->message;
    }
    $smtp->quit or die;
    """
    implicit = listener == "submissions"
    port = host.ports.submissions if implicit else host.ports.submission
    files = [str(tmp_path / message_id) for message_id in raws]
    done = run_perl(script, str(port), str(int(implicit)), certificate, user.address, user.key, *files)
    assert done.code == 0, done.text
    found = [stored(host, message_id) for message_id in raws]
    assert [one.raw for one in found] == list(raws.values())
    assert {(one.listener, one.tls, one.login) for one in found} == {(listener, "TLSv1.3", user.id)}
    assert len({one.session for one in found}) == 1
    assert {key: found[0].parameters[key] for key in ("BODY", "RET", "ENVID")} == {
        "BODY": "8BITMIME",
        "RET": "HDRS",
        "ENVID": "QQ314159",
    }
    assert found[0].recipients == {
        user.address: {"NOTIFY": "SUCCESS,DELAY", "ORCPT": f"rfc822;{user.address}"}
    }


@LISTENERS
def test_net_smtp_is_told_of_a_wrong_password(
    host: Host, user: User, certificate: str, listener: str
) -> None:
    implicit = listener == "submissions"
    port = host.ports.submissions if implicit else host.ports.submission
    done = run_perl("", str(port), str(int(implicit)), certificate, user.address, "wrong")
    assert "AUTH: 535 5.7.8" in done.err, done.text


def test_net_smtp_delivers_around_a_recipient_who_is_not_there(host: Host, user: User) -> None:
    message_id = new_message_id()
    script = r"""
    my ($good, $raw) = @ARGV[5, 6];
    $smtp->mail('friend@example.org') or die;
    my @taken = $smtp->to('nobody@example.test', $good, { SkipBad => 1 });
    print "@taken\n", $smtp->verify($good) ? 'verified ' : '', $smtp->code, "\n";
    print $smtp->expand($good) ? 'expanded ' : '', $smtp->code, "\n";
    $smtp->data($raw) or die; $smtp->quit or die;
    """
    raw = message(message_id=message_id)
    done = run_perl(script, str(host.ports.mx), "0", "", "", "", user.address, raw.decode())
    assert done.out.splitlines() == [user.address, "verified 252", "502"], done.text
    assert stored(host, message_id).raw == raw


def test_net_smtp_delivers_internationalized_mail(host: Host, certificate: str) -> None:
    user = host.user("grüße")
    message_id = new_message_id()
    raw = message("Subject: Übung", *EIGHT_BIT, body=GREETING, message_id=message_id)
    script = r"""
    my ($to, $raw) = @ARGV[5, 6];
    $smtp->supports('SMTPUTF8') or die;
    $smtp->command('MAIL', "FROM:<freund\@b\xc3\xbccher.example>", 'SMTPUTF8', 'BODY=8BITMIME');
    $smtp->response == 2 && $smtp->to($to) && $smtp->data($raw) or die $smtp->message;
    $smtp->quit or die;
    """
    done = run_perl(script, str(host.ports.mx), "0", certificate, "", "", user.address, raw.decode())
    assert done.code == 0, done.text
    found = stored(host, message_id)
    assert (found.raw, found.tls, found.sender) == (raw, "TLSv1.3", "freund@bücher.example")
    assert list(found.recipients) == [user.address]


def test_net_smtp_delivers_binary_mail_in_chunks(host: Host, user: User, tmp_path: Path) -> None:
    message_id = new_message_id()
    fields = ("MIME-Version: 1.0", "Content-Type: application/x-test", "Content-Transfer-Encoding: binary")
    raw = message(*fields, body="", message_id=message_id) + bytes(range(256)) * 400 + b"\n.\r\n\r"
    (tmp_path / "message").write_bytes(raw)
    script = r"""
    my ($to, $file) = @ARGV[5, 6];
    open my $in, '<:raw', $file or die; my $raw = do { local $/; <$in> };
    $smtp->mail('friend@example.org', Bits => 'binary') && $smtp->to($to) or die $smtp->message;
    $smtp->bdat(substr $raw, 0, 20) && $smtp->bdat(substr $raw, 20, 70000) or die $smtp->message;
    $smtp->bdatlast(substr $raw, 70020) or die $smtp->message;
    $smtp->quit or die;
    """
    done = run_perl(script, str(host.ports.mx), "0", "", "", "", user.address, str(tmp_path / "message"))
    assert done.code == 0, done.text
    found = stored(host, message_id)
    assert found.raw == raw
    assert found.parameters["BODY"] == "BINARYMIME"


# nodemailer

NODE = """
const [options, mails] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const transport = require('nodemailer').createTransport(options);
Promise.allSettled(mails.map(mail => transport.sendMail(mail))).then(results => {
  console.log(JSON.stringify(results.map(({value, reason}) =>
    reason ? {code: reason.code, reply: reason.response} : value)));
  transport.close();
});
"""


def nodemailer(options: Mapping[str, object], *mails: Mapping[str, object]) -> list[dict[str, object]]:
    """Have nodemailer send; what became of each mail."""
    node = program("node", "nodejs")
    needs(
        "nodemailer is not installed: npm install nodemailer, and name its node_modules in NODE_PATH",
        *(node, "-e", "require('nodemailer')"),
    )
    done = run(node, "-e", NODE, stdin=json.dumps([options, mails]).encode())
    assert done.code == 0, done.text
    results: list[dict[str, object]] = json.loads(done.out)
    return results


def submitting(host: Host, user: User, certificate: str, listener: str, key: str) -> dict[str, object]:
    """nodemailer's options for submission."""
    return {
        "host": "localhost",
        "port": host.ports.submission if listener == "submission" else host.ports.submissions,
        "secure": listener == "submissions",
        "requireTLS": True,
        "tls": {"ca": Path(certificate).read_text()},
        "auth": {"user": user.address, "pass": key},
        "pool": True,
        "maxConnections": 1,
        # A failed login is not tried again
        "maxRequeues": 0,
    }


@LISTENERS
@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
def test_nodemailer_submits_several_messages(
    host: Host, user: User, certificate: str, listener: str, method: str
) -> None:
    ids = [new_message_id() for _ in range(5)]
    results = nodemailer(
        {**submitting(host, user, certificate, listener, user.key), "authMethod": method},
        *(
            {
                "from": user.address,
                "to": user.address,
                "subject": "Übung",
                "text": "Grüße\n.\n",
                "messageId": f"<{message_id}>",
                "attachments": [{"filename": "größe.txt", "content": "1,80 m"}],
                "dsn": {
                    "id": message_id,
                    "return": "headers",
                    "notify": ["failure", "delay"],
                    "recipient": user.address,
                },
            }
            for message_id in ids
        ),
    )
    assert [result.get("accepted") for result in results] == [[user.address]] * len(ids), results
    found = [stored(host, message_id) for message_id in ids]
    assert {(one.listener, one.tls, one.login) for one in found} == {(listener, "TLSv1.3", user.id)}
    assert len({one.session for one in found}) == 1
    assert [one.parameters["ENVID"] for one in found] == ids
    assert found[0].parameters["RET"] == "HDRS"
    assert found[0].recipients == {
        user.address: {"NOTIFY": "FAILURE,DELAY", "ORCPT": f"rfc822;{user.address}"}
    }
    name, size = host.row(
        'SELECT "FileName", "SizeBytes" FROM public."EmailAttachments" WHERE "EmailId" = %s',
        host.email(str(found[0].id)),
    )
    assert (name, size) == ("größe.txt", 6)


@LISTENERS
def test_nodemailer_is_told_of_a_wrong_password(
    host: Host, user: User, certificate: str, listener: str
) -> None:
    (result,) = nodemailer(
        submitting(host, user, certificate, listener, "wrong"), {"from": user.address, "to": user.address}
    )
    assert result["code"] == "EAUTH"
    assert str(result["reply"]).startswith("535 5.7.8")


def test_nodemailer_delivers_internationalized_and_8_bit_mail(host: Host, certificate: str) -> None:
    user = host.user("grüße")
    message_id = new_message_id()
    raw = message("Subject: Übung", *EIGHT_BIT, body=GREETING, message_id=message_id)
    options = {"host": "localhost", "port": host.ports.mx, "tls": {"ca": Path(certificate).read_text()}}
    envelope = {
        "from": "freund@example.org",
        "to": [user.address, "nobody@example.test"],
        "use8BitMime": True,
    }
    (result,) = nodemailer(options, {"envelope": envelope, "raw": raw.decode()})
    assert result.get("rejected") == ["nobody@example.test"], result
    found = stored(host, message_id)
    assert found.raw == raw
    assert found.tls == "TLSv1.3"
    assert set(found.parameters) >= {"SMTPUTF8", "BODY"}
    assert list(found.recipients) == [user.address]


def test_nodemailer_is_told_that_nobody_is_there(host: Host, certificate: str) -> None:
    message_id = new_message_id()
    options = {"host": "localhost", "port": host.ports.mx, "tls": {"ca": Path(certificate).read_text()}}
    mail = {"from": "friend@example.org", "to": "nobody@example.test", "messageId": f"<{message_id}>"}
    (result,) = nodemailer(options, mail)
    assert result["code"] == "EENVELOPE"
    assert all_stored(host, message_id) == []
