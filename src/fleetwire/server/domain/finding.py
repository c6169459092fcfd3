"""From the words that somebody typed to the ids of what they may have.

Whatever is found here belongs to a project, and what belongs to a project that the caller may not
know of does not exist for them: the answer to it is the answer to what was never there.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetwire.core import access
from fleetwire.core.access import Forbidden, Reach
from fleetwire.core.ids import PREFIX, is_id
from fleetwire.server.domain.errors import Ambiguous, NotFound, ProjectNeeded
from fleetwire.server.store import Connection, nodes, projects, runs
from fleetwire.server.store.projects import ProjectRow


def run(connection: Connection, word: str, reach: Reach) -> str:
    """Return the id of a run, by it or a unique beginning.

    Raises NotFound, Ambiguous, Forbidden.
    """
    return _of_prefix(connection, "run", word, reach, runs.project_of)


def attempt(connection: Connection, word: str, reach: Reach) -> str:
    """Return the id of an attempt, as `run` does."""
    return _of_prefix(connection, "attempt", word, reach, runs.project_of_attempt)


def node(connection: Connection, word: str, reach: Reach) -> str:
    """Return the id of a node, by it, its name or a unique beginning of the id, as `run` does."""
    found = nodes.by_word(connection, word, reach.knows)
    if len(found) > 1:
        raise Ambiguous(
            f"More than one of your projects has a node {word[:80]!r}.",
            hint="Give its id: fleetwire nodes --output json.",
            field="node",
        )
    if not found and not is_id(word) and PREFIX.fullmatch(word):
        return _of_prefix(connection, "node", word, reach, nodes.project_of)
    if not found:
        raise NotFound(
            f"There is no node {word[:80]!r}.", hint="fleetwire nodes lists them.", field="node"
        )
    ((id_, project),) = found
    check(reach, project)
    return id_


def project(connection: Connection, word: str, reach: Reach) -> ProjectRow:
    """Return a project, by name or id. Raises NotFound, Forbidden."""
    found = known_project(connection, word, reach)
    check(reach, found.id)
    return found


def known_project(connection: Connection, word: str, reach: Reach) -> ProjectRow:
    """Return a project that the caller may know of, by name or id. Raises NotFound."""
    found = projects.by_word(connection, word)
    if found is None or not (reach.everywhere or found.id in reach.knows):
        raise NotFound(
            f"There is no project {word[:80]!r}.",
            hint="fleetwire projects lists yours.",
            field="project",
        )
    return found


def project_for(connection: Connection, word: str | None, reach: Reach) -> str:
    """Return the id of the project that something new goes to: the one that was named, else the
    only one possible, else `default`. Raises NotFound, Forbidden, ProjectNeeded.
    """
    if word is not None:
        return project(connection, word, reach).id
    if len(reach.may) == 1:
        return next(iter(reach.may))
    if access.DEFAULT_PROJECT in reach.may:
        return access.DEFAULT_PROJECT
    known = projects.names(connection, reach.may)
    raise ProjectNeeded(
        "You can do this in more than one project.",
        hint=f"Name one of: {', '.join(sorted(known.values()))}.",
        field="project",
    )


def within(connection: Connection, word: str | None, reach: Reach) -> frozenset[str]:
    """Return the projects that a list is of: the one that was named, else all possible ones."""
    return reach.may if word is None else frozenset({project(connection, word, reach).id})


def check(reach: Reach, project: str) -> None:
    """Raise Forbidden where the permission is not had in a project that is known."""
    if not reach.has(project):
        raise Forbidden(
            f"You do not have the permission {reach.permission!r} in this project.",
            hint="Ask an admin of the project.",
            project=project,
        )


def _of_prefix(
    connection: Connection,
    noun: str,
    word: str,
    reach: Reach,
    project_of: Callable[[Connection, str], str | None],
) -> str:
    if is_id(word):
        project_ = project_of(connection, word)
        found = [] if project_ is None or project_ not in reach.knows else [(word, project_)]
    elif PREFIX.fullmatch(word):
        found = runs.with_prefix(connection, noun, word, reach.knows)
    else:
        found = []
    if len(found) > 1:
        raise Ambiguous(
            f"More than one {noun} begins with {word}.", hint="Give more of the id.", field=noun
        )
    if not found:
        raise NotFound(
            f"There is no {noun} {word[:80]!r}.",
            hint="Give the id, or at least its first 6 characters.",
            field=noun,
        )
    ((id_, of),) = found
    check(reach, of)
    return id_
