"""What the settings raise."""

from __future__ import annotations

from collections.abc import Sequence


class SettingsError(Exception):
    """One or more settings are wrong; the message names each key, what was given and what is allowed.

    Values of secret keys never appear in it.
    """

    def __init__(self, *errors: str) -> None:
        """Gather ``errors``, one sentence each; all mistakes of one load are reported together."""
        self.errors: Sequence[str] = errors
        if len(errors) == 1:
            super().__init__(errors[0])
        else:
            super().__init__("\n".join([f"{len(errors)} settings are wrong:", *(f"  {e}" for e in errors)]))
