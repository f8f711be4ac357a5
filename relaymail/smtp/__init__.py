"""The protocol: grammar, replies, framing, and the engine behind every listener. Knows no database and no
settings file."""
