"""relaymail: a durable SMTP host on Twisted and PostgreSQL."""
