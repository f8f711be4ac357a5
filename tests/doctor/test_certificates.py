"""The certificate: its file, days, chain and names. What the ports present is in test_running_host."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from relaymail.doctor import Severity
from tests.doctor.conftest import Installation, failed_with, is_skipped, is_well
from tests.smtp_tls.conftest import NAME, Authority, Issued, authority, issue

__all__ = ["authority"]

FILE = "check.tls.certificate"
OTHERS = ("check.tls.expiry", "check.tls.chain", "check.tls.names", "check.tls.ports")


@pytest.fixture(autouse=True)
def trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine trusts the test's authority and nobody else."""
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.root.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


def use(installation: Installation, folder: Path, issued: Issued, *chain: Issued) -> None:
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    certificate.write_bytes(b"".join(one.pem for one in (issued, *chain)))
    key.write_bytes(issued.key_pem())
    installation.set(Smtp__CertificatePath=certificate, Smtp__CertificateKeyPath=key, Smtp__ServerName=NAME)


async def test_a_good_certificate(installation: Installation, authority: Authority, tmp_path: Path) -> None:
    use(installation, tmp_path, authority.issue(), authority.intermediate)
    outcomes = await installation.run(FILE, *OTHERS[:3])
    assert [is_well(outcome) for outcome in outcomes] == [True] * 4, outcomes


async def test_no_certificate(installation: Installation) -> None:
    first, *others = await installation.run(FILE, *OTHERS[:3])
    assert failed_with(first, Severity.ERROR, "CertificatePath is not set", "nobody can log in")
    assert all(is_skipped(other, FILE) for other in others)


async def test_a_development_certificate_that_is_not_made_yet(installation: Installation) -> None:
    installation.demo = True
    installation.set(Smtp__Mx__Port="0")
    outcomes = await installation.run(FILE, *OTHERS[:3])
    assert all(is_skipped(outcome, "first start makes it") for outcome in outcomes)


@pytest.mark.parametrize(
    ("days", "severity", "told"),
    [
        (31, None, ""),
        (29, Severity.WARN, "expires in 29 days"),
        (6, Severity.ERROR, "expires in 6 days"),
        (-1, Severity.ERROR, "has expired"),
        (150, Severity.ERROR, "not valid yet"),
    ],
)
async def test_the_days_that_are_left(
    installation: Installation,
    authority: Authority,
    tmp_path: Path,
    days: int,
    severity: Severity | None,
    told: str,
) -> None:
    ends = timedelta(days=days, hours=1)
    use(installation, tmp_path, authority.issue(ends=ends), authority.intermediate)
    expiry, chain = await installation.run("check.tls.expiry", "check.tls.chain")
    assert is_well(expiry) if severity is None else failed_with(expiry, severity, told)
    assert is_well(chain), "an expired certificate's chain is as good as before"


async def test_a_file_that_is_not_there(installation: Installation, tmp_path: Path) -> None:
    installation.set(Smtp__CertificatePath=tmp_path / "nosuch.pem")
    first, *others = await installation.run(FILE, *OTHERS[:3])
    assert failed_with(first, Severity.ERROR, "cannot be used", "nosuch.pem does not exist")
    assert all(is_skipped(other, FILE) for other in others)


async def test_a_key_of_another_certificate(
    installation: Installation, authority: Authority, tmp_path: Path
) -> None:
    use(installation, tmp_path, authority.issue())
    (tmp_path / "privkey.pem").write_bytes(authority.issue().key_pem())
    assert failed_with(await installation.look(FILE), Severity.ERROR, "belongs to none of the certificates")


async def test_a_wrong_password_is_told_and_not_shown(
    installation: Installation, authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue()
    use(installation, tmp_path, issued)
    (tmp_path / "privkey.pem").write_bytes(issued.key_pem(b"right"))
    installation.set(Smtp__CertificatePassword="hush-wrong")
    outcome = await installation.look(FILE)
    assert failed_with(outcome, Severity.ERROR, "the password is wrong")
    assert "hush" not in repr(outcome.finding)


async def test_a_chain_without_its_intermediate_certificate(
    installation: Installation, authority: Authority, tmp_path: Path
) -> None:
    use(installation, tmp_path, authority.issue())
    outcome = await installation.look("check.tls.chain")
    assert failed_with(outcome, Severity.WARN, "is not trusted", "last issuer: CN=Intermediate")


async def test_an_authority_that_nobody_knows(installation: Installation, tmp_path: Path) -> None:
    root = issue("Our own root", authority=True)
    use(installation, tmp_path, issue(NAME, root), root)
    assert failed_with(await installation.look("check.tls.chain"), Severity.WARN, "is not trusted")


async def test_a_certificate_that_signs_itself(installation: Installation, tmp_path: Path) -> None:
    use(installation, tmp_path, issue(NAME))
    assert failed_with(await installation.look("check.tls.chain"), Severity.WARN, "signs itself")


@pytest.mark.parametrize(
    ("made_out_to", "well"),
    [(NAME, True), ("*.example.test", True), ("www.example.test", False), ("*.mail.example.test", False)],
)
async def test_the_name(
    installation: Installation, authority: Authority, tmp_path: Path, made_out_to: str, well: bool
) -> None:
    use(installation, tmp_path, authority.issue(made_out_to), authority.intermediate)
    outcome = await installation.look("check.tls.names")
    told = f"not made out to {NAME}"
    assert is_well(outcome) if well else failed_with(outcome, Severity.WARN, told, made_out_to)


async def test_no_running_host_presents_nothing(installation: Installation) -> None:
    assert is_skipped(await installation.look("check.tls.ports"), "the host does not run")
