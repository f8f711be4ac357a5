"""Why a database's schema cannot be used; each text is a sentence for the operator."""

from __future__ import annotations


class SchemaError(Exception):
    """Base of what is wrong with a schema."""


class SchemaTooNew(SchemaError):
    """A newer relaymail has migrated the database."""


class SchemaMissing(SchemaError):
    """Tables that are needed do not exist (yet)."""


class PublicTablesConflict(SchemaError):
    """Shared tables were asked for where some exist already."""
