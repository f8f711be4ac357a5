"""The status page on the health port: one page without outside resources."""

from relaymail.health.page.render import Facts, Waiting, policy, render

__all__ = ["Facts", "Waiting", "policy", "render"]
