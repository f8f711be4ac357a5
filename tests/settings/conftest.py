"""Loading settings from texts, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

from relaymail.settings import Loaded, SettingsError, load

# a machine that is busy with something else is no failure
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


class Load(Protocol):
    """Loads settings from the text of a file and variables."""

    def __call__(
        self, file: str | bytes | None = None, /, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Loaded: ...


class Refused(Protocol):
    """Loads settings that must be refused, and returns the sentences of the error."""

    def __call__(
        self, file: str | bytes | None = None, /, environ: Mapping[str, str] | None = None, **options: Any
    ) -> list[str]: ...


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def loader(
        file: str | bytes | None = None, /, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Loaded:
        path = None
        if file is not None:
            path = tmp_path / "settings.json"
            path.write_bytes(file if isinstance(file, bytes) else file.encode())
        return load(path, environ or {}, **options)

    return loader


@pytest.fixture
def refused(load_text: Load) -> Refused:
    def loader(
        file: str | bytes | None = None, /, environ: Mapping[str, str] | None = None, **options: Any
    ) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load_text(file, environ, **options)
        return list(caught.value.errors)

    return loader
