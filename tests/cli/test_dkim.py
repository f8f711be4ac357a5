"""``relaymail dkim``."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import dns.zone
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dns.rdtypes.ANY.TXT import TXT

from relaymail.cli.context import Invocation
from relaymail.cli.dkim import dkim
from relaymail.message.dkim_keys import new_key
from tests.cli.conftest import Command


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(new_key("ed25519"))
    return file


def test_a_new_key_comes_with_its_record_and_does_not_sign_yet(relaymail: Command) -> None:
    (made,) = relaymail.json("dkim", "new", "Example.COM", "--selector", "Mail")
    assert (made["domain"], made["selector"], made["algorithm"], made["active"]) == (
        "example.com",
        "mail",
        "rsa",
        False,
    )
    assert made["record_name"] == "mail._domainkey.example.com"
    found = re.fullmatch(r"v=DKIM1; h=sha256; k=rsa; p=([A-Za-z0-9+/=]+)", made["record_text"])
    assert found is not None
    public = serialization.load_der_public_key(base64.b64decode(found[1]))
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == 2048
    assert "PRIVATE" not in relaymail.text("dkim", "show", "example.com")


def test_the_line_for_a_zone_file_is_one_and_says_the_same(relaymail: Command) -> None:
    (made,) = relaymail.json("dkim", "new", "example.com", "--selector", "s1")
    zone = dns.zone.from_text(f"$ORIGIN example.com.\n{made['zone_line']}\n", check_origin=False)
    (record,) = zone.find_rdataset("s1._domainkey", "TXT")
    assert isinstance(record, TXT)
    strings = record.strings
    assert max(map(len, strings)) <= 255
    assert b"".join(strings).decode() == made["record_text"]
    printed = relaymail.text("dkim", "show", "example.com")
    assert made["record_text"] in printed
    assert made["zone_line"] in printed


def test_both_algorithms_have_selectors_of_their_own(relaymail: Command) -> None:
    made = relaymail.json("dkim", "new", "example.com", "--algorithm", "both", "--subdomains", "--enable")
    assert [key["algorithm"] for key in made] == ["rsa", "ed25519"]
    assert all(re.fullmatch(r"s\d{8}-(rsa|ed25519)", key["selector"]) for key in made)
    assert all(key["active"] and key["subdomains"] for key in made)
    assert "k=ed25519" in made[1]["record_text"]


def test_keys_are_enabled_disabled_and_removed(relaymail: Command) -> None:
    for domain in ("example.com", "example.org"):
        relaymail("dkim", "new", domain, "--selector", "a", "--algorithm", "ed25519")
    assert relaymail.json("dkim", "enable", "example.com", "a")["active"] is True
    assert [k["active"] for k in relaymail.json("dkim", "list")] == [True, False]
    assert relaymail.json("dkim", "disable", "example.com", "A")["active"] is False
    relaymail("dkim", "remove", "example.com", "a")
    left = [(key["domain"], key["selector"]) for key in relaymail.json("dkim", "list")]
    assert left == [("example.org", "a")]
    assert "no key a" in relaymail.error("dkim", "enable", "example.com", "a")


def test_a_key_in_a_file_stays_there(relaymail: Command, pem: Path) -> None:
    (made,) = relaymail.json("dkim", "new", "example.com", "--selector", "f", "--key-file", "key.pem")
    assert (made["algorithm"], made["key_file"]) == ("ed25519", str(pem))
    relaymail("dkim", "remove", "example.com", "f")
    assert pem.exists()


def test_what_cannot_be_is_said_in_a_sentence(relaymail: Command, pem: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    file = ("dkim", "new", "example.com", "--key-file")
    assert "no private key" in relaymail.error(*file, "junk.pem")
    assert "other algorithm" in relaymail.error(*file, "key.pem", "--algorithm", "rsa")
    relaymail("dkim", "new", "example.com", "--selector", "s", "--algorithm", "ed25519")
    again = relaymail.error("dkim", "new", "example.com", "--selector", "s", "--algorithm", "ed25519")
    assert "another selector" in again


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "not a domain"], "is no domain"),
        (["new", "[192.0.2.1]"], "no DNS records"),
        (["new", "example.com", "--selector", "a_b"], "is no selector"),
        (["new", "example.com", "--key-file", "k.pem", "--algorithm", "both"], "holds one key"),
        (["enable", "example.com"], "SELECTOR"),
    ],
)
def test_wrong_usage_is_seen_before_anything_is_done(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(dkim, arguments, obj=Invocation(None, False, None))
    assert result.exit_code == 2
    assert sentence in result.output


def test_an_internationalized_domain_is_kept_as_a_labels(relaymail: Command) -> None:
    (made,) = relaymail.json("dkim", "new", "bücher.example", "--algorithm", "ed25519")
    assert made["domain"] == "xn--bcher-kva.example"
    assert relaymail.json("dkim", "list", "BÜCHER.example")[0]["selector"] == made["selector"]
