"""Hostile messages, and what of each must stand in the columns.

``messages/NAME.eml`` is a message as it came behind DATA, ``messages/NAME.json`` what is expected of it,
column by column, thought out by hand: a change there needs a reason, not a recording. ``large.py`` makes
those that are too large for a file. All of them are sent to ``bob@example.test``, a user, from outside.

To add one: write the two files, or a function in ``large.py``.
"""
