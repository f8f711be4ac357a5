"""Makes ``twistd relaymail`` known to twistd."""

from twisted.application.service import ServiceMaker

relaymail = ServiceMaker(
    "relaymail",
    "relaymail.service",
    "SMTP host: takes mail on submission, SMTPS and MX, stores it in PostgreSQL and notifies an HTTP API.",
    "relaymail",
)
