"""What scanners find: no relay, no list of users, no weak TLS."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.end_to_end.host import Host, User
from tests.interop.programs import program, succeed

LISTENERS = ("mx", "submission", "submissions")


@pytest.mark.parametrize("listener", LISTENERS)
def test_sslscan_finds_nothing_weak(host: Host, listener: str) -> None:
    starttls = () if listener == "submissions" else ("--starttls-smtp",)
    target = f"localhost:{getattr(host.ports, listener)}"
    done = succeed(program("sslscan"), "--xml=-", "--show-sigs", *starttls, target)
    test = ElementTree.fromstring(done.out).find("ssltest")
    assert test is not None
    spoken = {
        f"{protocol.get('type')} {protocol.get('version')}"
        for protocol in test.iter("protocol")
        if protocol.get("enabled") == "1"
    }
    assert spoken == {"tls 1.2", "tls 1.3"}
    ciphers = list(test.iter("cipher"))
    assert {cipher.get("sslversion") for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for cipher in ciphers:
        assert cipher.get("strength") in {"acceptable", "strong"}, ElementTree.tostring(cipher)
        assert re.fullmatch(r"(ECDHE|TLS)[-_].*(GCM|CHACHA20).*", cipher.get("cipher", "")), cipher.get(
            "cipher"
        )
        assert int(cipher.get("bits", 0)) >= 128
    groups = list(test.iter("group"))
    assert groups
    for group in groups:
        # RFC 9325 4.2 and 4.3: curves of 224 bits, groups of 2048 bits, which are 112 bits of strength
        assert int(group.get("bits", 0)) >= 112, group.get("name")
    signatures = {found.get("name", "") for found in test.iter("connection-signature-algorithm")}
    assert signatures
    assert not {name for name in signatures if re.search("md5|sha1|sha224|dsa_any", name)}
    for weakness in test.iter("heartbleed"):
        assert weakness.get("vulnerable") == "0"
    for renegotiation in test.iter("renegotiation"):
        assert renegotiation.get("supported") == "0"


def nmap(port: int, *scripts: str, arguments: str = "") -> dict[str, str]:
    """What each of nmap's scripts prints about a port; nothing of those that found nothing."""
    done = succeed(
        *(program("nmap"), "-Pn", "-n", "-sT", "-p", str(port), "-oX", "-", "127.0.0.1"),
        # "+": whatever the port's number is
        *("--script", ",".join(f"+{script}" for script in scripts), "--script-args", arguments or "-"),
    )
    root = ElementTree.fromstring(done.out)
    assert root.find(".//port/state[@state='open']") is not None, done.out
    return {found.get("id", ""): found.get("output", "") for found in root.iter("script")}


@pytest.mark.parametrize("listener", ["mx", "submission"])
def test_nmap_finds_no_relay(host: Host, listener: str) -> None:
    found = nmap(getattr(host.ports, listener), "smtp-open-relay")
    verdicts = {
        "mx": "Server doesn't seem to be an open relay, all tests failed",
        "submission": "Server isn't an open relay, authentication needed",
    }
    assert found["smtp-open-relay"].strip() == verdicts[listener]


def test_nmap_is_told_of_no_users(host: Host, user: User, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = tmp_path_factory.mktemp("nmap") / "names"
    names.write_text(f"{user.address.partition('@')[0]}\nnobody\nroot\n")
    for listener in ("mx", "submission"):
        found = nmap(
            getattr(host.ports, listener),
            *("smtp-enum-users", "smtp-commands", "smtp-ntlm-info", "smtp-strangeport"),
            *("smtp-vuln-cve2010-4344", "smtp-vuln-cve2011-1720", "smtp-vuln-cve2011-1764"),
            arguments=f"smtp-enum-users.methods={{VRFY,EXPN}},smtp.domain=example.test,userdb={names}",
        )
        assert "Couldn't find any accounts" in found["smtp-enum-users"]
        assert user.address.partition("@")[0] not in "".join(found.values())
        assert "relaymail.example.test, PIPELINING" in found["smtp-commands"]
        assert "smtp-ntlm-info" not in found
        assert "possible malware" in found["smtp-strangeport"]  # the port's number is not SMTP's
        assert "VULNERABLE" not in "".join(found.values()).replace("NOT VULNERABLE", "")
