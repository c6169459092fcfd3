"""`fleetwire audit`: list what was done, verify that nothing of it was changed, export it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleetwire.cli.app import Leaf
from fleetwire.cli.connect import connect
from fleetwire.cli.errors import FAILED, UsageError
from fleetwire.cli.parsing import Parser, count
from fleetwire.cli.show import say, short, shown_json, table, when, write_json, write_list
from fleetwire.cli.visible import one_line

if TYPE_CHECKING:
    from fleetwire.client import Client
    from fleetwire.client.audit import AuditEntry, Export, Verified
    from fleetwire.core.audit import Head

_PATH_CHARS: Final = 1000
_FILTERS = ("action", "actor", "target", "outcome", "address", "since", "until")


def _configure_list(parser: Parser) -> None:
    parser.story = "It takes the permission read-audit in a project, or read-system-audit."
    parser.examples += [
        "fleetwire audit --actor anna --since 2030-01-31T00:00:00Z",
        "fleetwire audit --action 'node.*' --outcome refused",
        "fleetwire audit --system --action login",
    ]
    _whose(parser)
    parser.option("--action", metavar="NAME", help="only this one, or a group such as 'node.*'")
    parser.option("--actor", metavar="WHO", help="only what this user or node did: id or name")
    parser.option("--target", metavar="WHAT", help="only what was done to this: id or name")
    parser.option("--outcome", choices=("done", "refused"), help="only what was done, or refused")
    parser.option("--address", metavar="IP", help="only what came from this address")
    parser.option("--since", metavar="TIME", help="not before 2030-01-31T12:00:00Z")
    parser.option("--until", metavar="TIME", help="only before this time")
    parser.option(
        "--limit", metavar="N", type=count, default=50, help="at most N, newest first (default 50)"
    )


def _whose(parser: Parser) -> None:
    parser.option("--project", metavar="NAME", help="of this project (default: all of yours)")
    parser.option("--system", action="store_true", help="of the whole system instead")


def _list(values: argparse.Namespace) -> int:
    query = {name: getattr(values, name) for name in _FILTERS}
    query["limit"] = min(values.limit, 500)
    if not values.system:
        query["project"] = values.project
    from fleetwire.client.audit import Audit

    with connect() as client:
        if values.output != "text":
            path = ("system", "audit") if values.system else ("audit",)
            return write_list(client.get_raw(*path, query=query), values.output)
        rows = []
        for entry in Audit(client).entries(system=values.system, query=query):
            rows.append(_row(entry))
            if len(rows) >= values.limit:
                break
    if not rows:
        sys.stderr.write("There is no such entry.\n")
        return 0
    table(("WHEN", "WHO", "FROM", "ACTION", "ON", "OUTCOME", "PROJECT", "MORE"), rows)
    return 0


def _row(entry: AuditEntry) -> tuple[str, ...]:
    actor, target = entry.actor, entry.target
    more = ", ".join(f"{name}={value}" for name, value in sorted(entry.detail.items()))
    return (
        when(entry.at),
        actor.name or actor.id or actor.kind,
        entry.address,
        entry.action,
        target.name or short(target.id) or target.kind,
        f"refused ({entry.code})" if entry.outcome == "refused" else entry.outcome,
        entry.project or entry.chain,
        more,
    )


def _configure_verify(parser: Parser) -> None:
    parser.story = (
        "Each entry holds the hash of the one before it, and the server signs where the chain is.\n"
        "Without FILE the server's chains are read and verified here. With --key nothing counts\n"
        "but what that key, or one that it vouches for, has signed, and to have signed nothing is\n"
        "a failure: note it once, and keep it elsewhere. With --known what an earlier export has\n"
        "seen must still be there."
    )
    parser.examples += [
        "fleetwire audit verify",
        "fleetwire audit verify audit-2030-01.jsonl --key 'base64 of 32 bytes'",
        "fleetwire audit verify --project web --known audit-2030-01.jsonl",
    ]
    parser.positional("file", nargs="?", completes="file", help="an export; needs no server")
    _whose(parser)
    parser.option("--key", metavar="KEY", help="the public key to trust, base64")
    parser.option(
        "--known", metavar="FILE", completes="file", help="an earlier export of the same chain"
    )


def _verify(values: argparse.Namespace) -> int:
    from fleetwire.client.audit import Export, read_key

    key = None if values.key is None else read_key(values.key)
    known = None if values.known is None else Export(Path(values.known))
    if values.file is not None:
        found = [_verify_file(values.file, key, known)]
    else:
        with connect() as client:
            found = [
                (name, _verify_online(client, whose, key, known))
                for name, whose in _chains(client, values)
            ]
    if values.output == "text":
        for name, one in found:
            say(f"{one_line(name, _PATH_CHARS)}: {_sentence(one)}")
        if key is None:
            own = one_line(found[0][1].key)
            say(f"The key is {own}, as it says itself: note it, and give --key.")
    else:
        import msgspec

        shown = [_shape(name, one) for name, one in found]
        write_json(msgspec.json.encode({"items": shown}))
    return 0 if all(one.is_good for _, one in found) else FAILED


def _verify_file(path: str, key: bytes | None, known: Export | None) -> tuple[str, Verified]:
    from fleetwire.client.audit import BadExport, Export

    export = Export(Path(path))
    _same(known, export.beginning.chain)
    verified = export.verify(key=key, known=_heads(known))
    if verified.verdict.is_good and not export.is_whole:
        raise BadExport(
            f"{path} was not written to its end: it stops at entry {verified.verdict.head.number}.",
            hint="Export it again.",
        )
    return path, verified


def _verify_online(
    client: Client, whose: dict[str, Any], key: bytes | None, known: Export | None
) -> Verified:
    from fleetwire.client.audit import Audit

    verified = Audit(client).verify(**whose, key=key, known=_heads(known))
    _same(known, verified.chain)
    return verified


def _same(known: Export | None, chain: str) -> None:
    if known is not None and known.beginning.chain != chain:
        raise UsageError(
            "What is known is of another chain.",
            hint=f"It is of {known.beginning.project or known.beginning.chain}.",
        )


def _heads(known: Export | None) -> list[Head]:
    return [] if known is None else known.heads()


def _chains(client: Client, values: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """Return the chains that are meant: all that one may read, unless one is named."""
    if values.system:
        return [("system", {"system": True})]
    if values.project is not None:
        return [(values.project, {"project": values.project})]
    me = client.me()
    found: list[tuple[str, dict[str, Any]]] = [
        (one.name, {"project": one.id}) for one in me.projects if "read-audit" in one.permissions
    ]
    if "read-system-audit" in me.permissions:
        found.append(("system", {"system": True}))
    if not found:
        raise UsageError(
            "You may read no audit.",
            hint="That takes the role auditor in a project; ask an admin of it.",
        )
    if values.known is not None and len(found) > 1:
        raise UsageError(
            "An earlier export is of one chain.", hint="Name it: --project NAME, or --system."
        )
    return found


def _sentence(one: Verified) -> str:
    verdict = one.verdict
    broken = verdict.broken
    if broken is not None:
        return f"BROKEN at entry {broken.number} ({broken.what}): {broken.text}."
    if not verdict.entries:
        return "no entries."
    what = f"{verdict.entries} entries ({verdict.first} to {verdict.head.number})"
    rest = verdict.head.number - verdict.signed
    if one.is_strange:
        said = f"NOT TO BE TRUSTED: {what}, and nothing of it is signed by that key"
    elif not verdict.signed:
        said = f"whole, {what}; none of them is signed yet"
    elif rest:
        said = f"whole, {what}; signed up to {verdict.signed} ({when(one.signed_at)}), "
        said += f"the last {rest} not yet"
    else:
        said = f"whole, {what}, all signed ({when(one.signed_at)})"
    if verdict.strange:
        said += f"; {verdict.strange} checkpoints of keys that nobody vouches for say nothing"
    return f"{said}."


def _shape(name: str, one: Verified) -> dict[str, Any]:
    verdict = one.verdict
    broken = verdict.broken
    return {
        "name": name,
        "chain": one.chain,
        "good": one.is_good,
        "broken": None if broken is None else broken._asdict(),
        "entries": verdict.entries,
        "first": verdict.first,
        "last": verdict.head.number,
        "hash": verdict.head.hash.hex(),
        "signed": verdict.signed,
        "signed_at": one.signed_at,
        "key": one.key,
        "key_given": one.is_given,
    }


def _configure_export(parser: Parser) -> None:
    parser.story = (
        "One line of JSON each: what it is of, every entry, every checkpoint, the end. Keep it\n"
        "where the server's admins cannot reach it: `audit verify` needs nothing else."
    )
    parser.examples += [
        "fleetwire audit export --project web > audit-web.jsonl",
        "fleetwire audit export --system > audit-system.jsonl",
    ]
    _whose(parser)


def _export(values: argparse.Namespace) -> int:
    from fleetwire.client.audit import Audit

    with connect() as client:
        for line in Audit(client).export(project=values.project, system=values.system):
            sys.stdout.buffer.write(shown_json(line))
    sys.stdout.buffer.flush()
    return 0


LEAVES = {
    "audit": Leaf(_configure_list, _list),
    "audit list": Leaf(_configure_list, _list),
    "audit verify": Leaf(_configure_verify, _verify),
    "audit export": Leaf(_configure_export, _export),
}
