"""The long run of :mod:`tests.fuzz.checks_content`; see :mod:`tests.fuzz.run`."""

from __future__ import annotations

from tests.fuzz.run import main

if __name__ == "__main__":
    main("content")
