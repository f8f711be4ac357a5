"""Check of the certificate's names: is it made out to this host."""

from __future__ import annotations

from relaymail.doctor.certificates import certificate, covers, made_out_to, usable
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, setting


async def look(context: Context) -> Finding:
    """``Smtp:ServerName``, by which clients and other hosts know it."""
    material = await usable(context)
    if (await certificate(context)).development:
        raise Skipped("the certificate is the self-signed one for development")
    name = context.settings.smtp.server_name
    found = ", ".join(made_out_to(material.certificate)) or "nobody"
    if not covers(material.certificate, name):
        return failed(f"The certificate is not made out to {name}", f"it is for {found}", names=found)
    return passed(f"The certificate is made out to {name}", f"it is for {found}", names=found)


CHECK = Check(
    "check.tls.names",
    "Certificate is made out to the server's name",
    Severity.WARN,
    ("tls",),
    Page(
        what="Looks for `Smtp:ServerName` among the names of the certificate (subjectAltName, wildcards of "
        "one label).",
        why="Mail programs compare the name they connect to with those in the certificate, and refuse "
        "another one.",
        causes=(
            "`Smtp:ServerName` is still `localhost`",
            "The certificate is that of the web site",
            "The name was changed, and the certificate not issued anew",
        ),
        fix=setting("Smtp__ServerName=mail.example.com", comment="name it as the certificate does")
        + Remedy(
            *[
                "# or have a certificate for the name issued\ncertbot certonly --standalone -d "
                "mail.example.com"
            ]
            * 3
        ),
        verify="openssl s_client -connect localhost:587 -starttls smtp </dev/null "
        "| openssl x509 -noout -ext subjectAltName",
        related=("check.tls.certificate", "check.dns.addresses"),
    ),
    look,
)
