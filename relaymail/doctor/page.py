"""What is to be told of a check: why it matters, what it may be, how it is mended, in each kind of place."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("compose", "systemd", "kubernetes")
"""The places a host runs in; the names of :class:`Remedy`'s fields."""

HEADINGS = {
    "compose": "Docker Compose",
    "systemd": "Bare metal, systemd",
    "kubernetes": "Kubernetes, Helm",
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """Commands to paste into a shell, for each kind of place.

    They go by the names of the files in ``docs/deploy``: the service ``relaymail`` with the variables of
    ``relaymail.env``; the unit ``relaymail`` with ``/etc/relaymail/environment``; the deployment
    ``relaymail``.
    """

    compose: str
    systemd: str
    kubernetes: str

    def of(self, kind: str) -> str:
        """The commands for one of :data:`KINDS`."""
        text: str = getattr(self, kind)
        return text

    def __add__(self, other: Remedy) -> Remedy:
        """One behind the other."""
        return Remedy(*(f"{self.of(kind)}\n{other.of(kind)}" for kind in KINDS))


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a check."""

    what: str
    """What it looks at, and what makes it fail."""
    why: str
    """Why it matters."""
    causes: tuple[str, ...]
    """Common causes of a failure."""
    fix: Remedy
    verify: str = ""
    """Commands that show that it is mended, beside running the check again."""
    related: tuple[str, ...] = ()
    """Ids of checks that look at something near."""


def setting(*assignments: str, private: str = "", comment: str = "") -> Remedy:
    """Give settings, ``Key__Name=value`` each, and start again.

    :param private: one more, which is to be in no definition of a deployment.
    :param comment: said in front, as a comment of the shell.
    """
    head = f"# {comment}\n" if comment else ""
    plain = " ".join(f"'{assignment}'" for assignment in assignments)
    lines = f"{plain} '{private}'".strip() if private else plain
    cluster = [f"kubectl set env deployment/relaymail {plain}"] if plain else []
    if private:
        name, _, value = private.partition("=")
        cluster += [
            f'kubectl patch secret relaymail -p \'{{"stringData":{{"{name}":"{value}"}}}}\'',
            "kubectl rollout restart deployment/relaymail",
        ]
    return Remedy(
        f"{head}printf '%s\\n' {lines} >> relaymail.env\ndocker compose up -d relaymail",
        f"{head}printf '%s\\n' {lines} >> /etc/relaymail/environment\nsystemctl restart relaymail",
        head + "\n".join(cluster),
    )


def inside(*commands: str, comment: str = "") -> Remedy:
    """Run commands where the host runs, with its settings: ``relaymail …`` or programs of the system."""
    head = f"# {comment}\n" if comment else ""
    words = [command.removeprefix("relaymail ") for command in commands if command.startswith("relaymail ")]
    shell = "set -a; . /etc/relaymail/environment; set +a\n" if words else ""
    systemd = "\n".join(
        command.replace("relaymail ", "relaymail --config /etc/relaymail/settings.json ", 1)
        if command.startswith("relaymail ")
        else command
        for command in commands
    )
    return Remedy(
        head + "\n".join(f"docker compose exec relaymail {command}" for command in commands),
        head + shell + systemd,
        head + "\n".join(f"kubectl exec deployment/relaymail -- {command}" for command in commands),
    )


def everywhere(commands: str) -> Remedy:
    """The same commands in every kind of place."""
    return Remedy(commands, commands, commands)
