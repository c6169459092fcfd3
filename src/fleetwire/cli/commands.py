"""All commands by name. The table holds what `fleetwire --help` and completion need; the code
of a command is imported when that command is called and not before.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Command(NamedTuple):
    """One command: its words, what it does in one line, and the module that holds it."""

    words: tuple[str, ...]
    summary: str
    module: str

    @property
    def name(self) -> str:
        """The command as it is typed."""
        return " ".join(self.words)


def _command(name: str, summary: str, module: str) -> tuple[str, Command]:
    return name, Command(tuple(name.split()), summary, f"fleetwire.cli.{module}")


COMMANDS: Final[dict[str, Command]] = dict(
    (
        _command("up", "start the whole system on this machine", "up"),
        _command("run", "run a command or script on nodes and watch it", "run"),
        _command("runs", "list runs", "runs"),
        _command("runs show", "show a run and its tasks", "runs"),
        _command("runs logs", "print or follow the output of a run", "logs"),
        _command("runs stop", "stop a run", "runs"),
        _command("runs why", "tell what happened to a run, with reasons", "runs"),
        _command("nodes", "list nodes", "nodes"),
        _command("nodes show", "show a node and what happened to it", "nodes"),
        _command("nodes drain", "let a node finish its work and take no more", "nodes_admin"),
        _command("nodes resume", "let a node take work again", "nodes_admin"),
        _command("nodes disable", "lock a node out", "nodes_admin"),
        _command("nodes delete", "delete a node that is gone", "nodes_admin"),
        _command("nodes approve", "let a node in that waits for approval", "nodes_admin"),
        _command("nodes deny", "turn a node away that waits for approval", "nodes_admin"),
        _command("nodes release", "let a quarantined node in again", "nodes_admin"),
        _command("nodes revoke", "end a node's rights at once", "nodes_admin"),
        _command("nodes why", "tell what happened to a node", "nodes_admin"),
        _command("tokens", "list API tokens", "tokens"),
        _command("tokens list", "list API tokens or enrolment tokens", "tokens"),
        _command("tokens create", "make an API token or an enrolment token", "tokens"),
        _command("tokens delete", "end a token", "tokens"),
        _command("users", "list users", "users"),
        _command("users show", "show a user and their roles", "users"),
        _command("users create", "make a user", "users"),
        _command("users disable", "shut a user out, at once", "users"),
        _command("users enable", "let a user log in again", "users"),
        _command("users reset-password", "give a user a new password", "users"),
        _command("users end-totp", "end the second factor of one who has lost it", "users"),
        _command("projects", "list your projects", "projects"),
        _command("projects create", "make a project", "projects"),
        _command("projects delete", "delete a project that holds nothing", "projects"),
        _command("roles", "list who has which roles in a project", "projects"),
        _command("roles grant", "give a user roles in a project", "projects"),
        _command("roles revoke", "take roles in a project from a user", "projects"),
        _command("secrets", "list secrets, without their values", "secrets"),
        _command("secrets list", "list secrets, without their values", "secrets"),
        _command("secrets set", "set a secret that runs can name", "secrets"),
        _command("secrets delete", "delete a secret", "secrets"),
        _command("audit", "list what was done, by whom and from where", "audit"),
        _command("audit list", "list what was done, by whom and from where", "audit"),
        _command("audit verify", "prove that nothing of it was changed", "audit"),
        _command("audit export", "write a chain of it as JSON lines", "audit"),
        _command("login", "log in to a server and remember it", "login"),
        _command("logout", "forget the login and end its token", "login"),
        _command("whoami", "show who you are logged in as", "login"),
        _command("server", "run the server", "server"),
        _command("server backup", "copy all that a server keeps, while it serves", "server"),
        _command("server restore", "make a data folder from a backup", "server"),
        _command("server rotate-signing-key", "put a new signing key in its place", "server"),
        _command(
            "server raise-generation", "say that the record was put back by other means", "server"
        ),
        _command("server rotate-master-key", "encrypt all secrets with a new key", "server"),
        _command("server forget-secrets", "delete all secrets: their key is lost", "server"),
        _command("agent", "run the agent of this machine", "agent"),
        _command("agent status", "show what this machine's agent is doing now", "agent"),
        _command("swarm", "simulate agents to see what a server can carry", "swarm"),
        _command("system", "show the whole system, and what it does not do by itself", "system"),
        _command("system close-breaker", "let the system act by itself again", "system"),
        _command("doctor", "find what is wrong here and how to mend it", "doctor"),
        _command("completion", "print a completion script for your shell", "completion"),
    )
)

GROUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Work", ("run", "runs", "nodes")),
    (
        "Access",
        ("login", "logout", "whoami", "tokens", "users", "projects", "roles", "secrets", "audit"),
    ),
    ("Operate", ("up", "server", "agent", "swarm", "system", "doctor", "completion")),
)


def below(noun: str) -> list[Command]:
    """Return the commands one word below a noun."""
    return [command for command in COMMANDS.values() if command.words[:-1] == (noun,)]
