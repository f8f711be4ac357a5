"""Certificates in all the forms people have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from relaymail.smtp.tls import CertificateError, development_certificate, load_certificate, self_signed
from tests.smtp_tls.conftest import NAME, Authority, Issued, issue

Write = Callable[..., Path]


def pfx(leaf: Issued, authority: Authority, password: bytes | None, *, key: bool = True) -> bytes:
    """A PFX file with its chain."""
    chain = [authority.root.certificate, authority.intermediate.certificate]
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(
        b"mail", leaf.key if key else None, leaf.certificate, chain, encryption
    )


def test_pem_with_chain_and_key_in_one_file(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    found = load_certificate(write("x", leaf.pem, authority.intermediate.pem, leaf.key_pem()))
    assert found.certificate == leaf.certificate
    assert found.chain == (authority.intermediate.certificate,)
    assert not found.expired


def test_pem_in_any_order_with_text_and_strangers_between(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    parts = [
        b"Bag Attributes\n",
        authority.root.pem,
        leaf.key_pem(form=PrivateFormat.TraditionalOpenSSL),
        issue("stranger").pem,
        authority.intermediate.pem.replace(b"\n", b"\r\n"),
        b"subject=x\n",
        leaf.pem,
    ]
    found = load_certificate(write("x", *parts))
    assert found.certificate == leaf.certificate
    assert found.chain == (authority.intermediate.certificate, authority.root.certificate)


@pytest.mark.parametrize("password", [None, "sesame"])
def test_pem_with_the_key_in_its_own_file(write: Write, authority: Authority, password: str | None) -> None:
    leaf = authority.issue()
    chain = write("fullchain.pem", leaf.pem, authority.intermediate.pem)
    key = write("privkey.pem", leaf.key_pem(password.encode() if password else None))
    assert load_certificate(chain, key, password).certificate == leaf.certificate


def test_a_password_too_many_does_no_harm(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    assert (
        load_certificate(write("x", leaf.pem, leaf.key_pem()), None, "unused").certificate == leaf.certificate
    )


@pytest.mark.parametrize("password", [None, "sesame", "pässwörd"])
def test_pfx(write: Write, authority: Authority, password: str | None) -> None:
    leaf = authority.issue()
    content = pfx(leaf, authority, password.encode() if password else None)
    found = load_certificate(write("certificate.pem", content), None, password)
    assert found.certificate == leaf.certificate
    assert found.chain == (authority.intermediate.certificate, authority.root.certificate)


def test_pfx_as_older_windows_writes_it(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(SHA1())
        .build(b"sesame")
    )
    content = pkcs12.serialize_key_and_certificates(None, leaf.key, leaf.certificate, None, encryption)
    assert load_certificate(write("x.pfx", content), None, "sesame").certificate == leaf.certificate


def test_der_with_a_pem_or_der_key(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    der_key = leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for key in (leaf.key_pem(), der_key):
        found = load_certificate(write("x.cer", leaf.der), write("x.key", key))
        assert found.certificate == leaf.certificate
        assert found.chain == ()


@pytest.mark.parametrize(
    "make", [ed25519.Ed25519PrivateKey.generate, lambda: rsa.generate_private_key(65537, 2048)]
)
def test_keys_of_other_kinds(write: Write, authority: Authority, make: Callable[[], object]) -> None:
    leaf = authority.issue(key=make())
    assert load_certificate(write("x", leaf.pem, leaf.key_pem())).certificate == leaf.certificate


def test_facts_are_those_dotnet_shows(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    facts = load_certificate(write("x", leaf.pem, leaf.key_pem())).leaf
    assert facts.subject == f"CN={NAME}"
    assert facts.issuer == "CN=Intermediate"
    assert facts.dns_names == (NAME,)
    assert facts.not_before.tzinfo is not None
    assert timedelta(days=89) < facts.not_after - datetime.now(UTC) < timedelta(days=91)
    assert facts.thumbprint == leaf.certificate.fingerprint(SHA1()).hex().upper()
    assert len(facts.thumbprint) == 40


def test_an_expired_certificate_is_loaded_and_says_so(write: Write, authority: Authority) -> None:
    leaf = authority.issue(ends=timedelta(days=-1))
    found = load_certificate(write("x", leaf.pem, leaf.key_pem()))
    assert found.expired
    assert not found.leaf.expired(datetime.now(UTC) - timedelta(days=2))


class TestErrors:
    """Each tells the file and what is wrong with it."""

    @pytest.fixture
    def leaf(self, authority: Authority) -> Issued:
        return authority.issue()

    def refused(self, words: str, path: Path, key: Path | None = None, password: str | None = None) -> None:
        with pytest.raises(CertificateError) as caught:
            load_certificate(path, key, password)
        assert words in str(caught.value)
        assert str(key or path) in str(caught.value) or str(path) in str(caught.value)

    def test_missing_files(self, write: Write, leaf: Issued, tmp_path: Path) -> None:
        self.refused("does not exist", tmp_path / "none")
        self.refused("none does not exist", write("x", leaf.pem), tmp_path / "none")

    def test_a_folder_or_a_forbidden_file(self, write: Write, leaf: Issued, tmp_path: Path) -> None:
        self.refused("cannot be read", tmp_path)
        if os.geteuid() != 0:
            path = write("x", leaf.pem, leaf.key_pem())
            path.chmod(0)
            self.refused("cannot be read", path)

    def test_empty_huge_and_other_files(self, write: Write) -> None:
        self.refused("is empty", write("x"))
        self.refused("larger than 1 MiB", write("x", b"x" * (1024 * 1024 + 1)))
        self.refused("neither a PEM", write("x", b"\xfe\xed\xfe\xed JKS"))
        self.refused("neither a PEM", write("x", b"hello"))

    def test_damaged_files(self, write: Write, leaf: Issued, authority: Authority) -> None:
        damaged = leaf.pem[:28] + b"AAAA" + leaf.pem[32:]
        self.refused("damaged certificate", write("x", damaged, leaf.key_pem()))
        self.refused(
            "cannot be read", write("x", leaf.pem, leaf.key_pem()[:28] + b"AAAA" + leaf.key_pem()[32:])
        )
        self.refused("damaged", write("x", pfx(leaf, authority, b"p")[:-20]), None, "p")
        self.refused("neither a PEM", write("x", leaf.der[:-20]))

    def test_any_damage_is_an_error_of_the_certificate_or_none(
        self, write: Write, leaf: Issued, authority: Authority
    ) -> None:
        whole = (
            leaf.pem + authority.intermediate.pem + leaf.key_pem(b"p"),
            pfx(leaf, authority, None),
            leaf.der,
        )
        key = write("key", leaf.key_pem())
        chance = Random(7)
        failures = 0
        for _ in range(400):
            content = bytearray(chance.choice(whole))
            for _ in range(chance.randint(1, 3)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            path = write("x", content)
            try:
                load_certificate(path, key if content[:1] == b"0" else None, "p")
            except CertificateError:
                failures += 1
        assert failures > 100

    def test_no_key(self, write: Write, leaf: Issued, authority: Authority) -> None:
        self.refused("holds no private key", write("x", leaf.pem))
        self.refused("holds no private key", write("x", leaf.der))
        self.refused("holds no private key", write("x", pfx(leaf, authority, b"p", key=False)), None, "p")
        self.refused("holds no private key", write("x", leaf.pem), write("y", leaf.pem))

    def test_no_certificate(self, write: Write, leaf: Issued) -> None:
        self.refused("holds no certificate", write("x", leaf.key_pem()))

    def test_a_key_of_another_certificate(self, write: Write, leaf: Issued, authority: Authority) -> None:
        other = authority.issue()
        self.refused("belongs to none", write("x", leaf.pem, other.key_pem()))
        self.refused("belongs to none", write("x", leaf.pem), write("y", other.key_pem()))

    def test_wrong_and_missing_passwords(self, write: Write, leaf: Issued, authority: Authority) -> None:
        encrypted = write("x", leaf.pem, leaf.key_pem(b"sesame"))
        self.refused("needs a password", encrypted)
        self.refused("the password is wrong", encrypted, None, "hidden-word")
        archive = write("y", pfx(leaf, authority, b"sesame"))
        self.refused("needs a password", archive)
        self.refused("the password is wrong", archive, None, "hidden-word")

    def test_a_key_that_tls_does_not_know(self, write: Write) -> None:
        key = dsa.generate_private_key(2048)
        leaf = issue(NAME, key=key)
        self.refused("RSA, EC and Ed25519", write("x", leaf.pem, leaf.key_pem()))


class TestDevelopmentCertificate:
    """Made once, kept while it is good."""

    def test_it_is_made_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        path = development_certificate(folder, ["mail.example.test", "bücher.test", "127.0.0.1", "::1"])
        assert path == folder / "certificate.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(folder.iterdir()) == [path]
        found = load_certificate(path)
        names = found.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["mail.example.test", "xn--bcher-kva.test"]
        assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("::1")]
        assert found.leaf.not_after - datetime.now(UTC) > timedelta(days=800)

    def test_it_is_kept_while_it_is_good(self, tmp_path: Path) -> None:
        before = development_certificate(tmp_path, ["a.test", "b.test"]).read_bytes()
        assert development_certificate(tmp_path, ["b.test"]).read_bytes() == before

    def test_it_is_renewed_for_another_name(self, tmp_path: Path) -> None:
        before = development_certificate(tmp_path, ["a.test"]).read_bytes()
        assert development_certificate(tmp_path, ["b.test"]).read_bytes() != before

    @pytest.mark.parametrize(
        "content", [b"", b"x", self_signed(["a.test"])[0], b"".join(self_signed(["a.test"], 29))]
    )
    def test_it_is_renewed_when_unusable_or_near_its_end(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "certificate.pem").write_bytes(content)
        path = development_certificate(tmp_path, ["a.test"])
        assert path.read_bytes() != content
        assert not load_certificate(path).expired
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("")
        with pytest.raises(CertificateError, match="file"):
            development_certificate(blocked / "below", ["a.test"])

    def test_a_failed_write_leaves_the_old_one_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "certificate.pem"
        path.write_bytes(b"old")

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CertificateError, match="No space left"):
            development_certificate(tmp_path, ["a.test"])
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
