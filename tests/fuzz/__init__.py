"""Fuzzing: checks that must hold of any bytes whatever, and the ways to throw bytes at them.

``checks_*.py`` hold one function each, ``check(data)``, that raises when something is wrong; they know
nothing of who calls them. ``python -m tests.fuzz.NAME`` runs one for long, with atheris where that is
installed; ``test_short.py`` runs all of them for some seconds, on the seeds and with hypothesis.
"""
