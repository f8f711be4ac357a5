"""Checks with remedies: what is wrong with an installation, why it matters, and how to mend it."""

from relaymail.doctor.catalogue import CHECKS, chosen
from relaymail.doctor.check import Check, Finding, Severity, State
from relaymail.doctor.context import Context
from relaymail.doctor.runner import Outcome, exit_code, run_checks

__all__ = [
    "CHECKS",
    "Check",
    "Context",
    "Finding",
    "Outcome",
    "Severity",
    "State",
    "chosen",
    "exit_code",
    "run_checks",
]
