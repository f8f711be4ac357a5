"""``python -m relaymail.cli`` is the command ``relaymail``."""

from relaymail.cli import main

main()
