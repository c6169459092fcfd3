"""The signing key is changed under a fleet that goes on working, and no crash loses it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fleetwire.core.envelopes import learn, order_bytes
from fleetwire.server import backup, signing
from fleetwire.server.config import Config
from fleetwire.server.domain import dispatch
from fleetwire.server.domain.dispatch import Signing
from fleetwire.server.files import write_private
from fleetwire.server.signing import BadKeyFile, Signer, key_chain, rotate
from fleetwire.server.store import attempts
from fleetwire.testing.fake_node import Behaviour
from fleetwire.testing.heart import Serve
from fleetwire.testing.lab import Lab, wait_until


def verifies(key: bytes, data: bytes, signature: bytes) -> bool:
    from fleetwire.agent import keys  # noqa: PLC0415 - as the agent does it

    return keys.verifies(key, data, signature)


def test_a_fleet_follows_two_rotations(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        for round_ in range(3):
            server = lab.start_server()
            agent = lab.start_agent()
            run = lab.submit("exit 0\n").id
            wait_until(lambda run=run: lab.client.run(run).state == "ended", "the run")
            assert lab.client.run(run).outcome == "succeeded"
            if not round_:
                refused = lab.cli("server", "rotate-signing-key", "--data", str(lab.data))
                assert (refused.returncode, "Another server" in refused.stderr) == (2, True)
            agent.stop()
            server.stop()
            known = json.loads((lab.state("node-1") / "identity.json").read_text())["server_keys"]
            assert len(known) == min(round_ + 1, 2)
            assert list(known)[-1] == Signer.open(lab.data).key_id
            made = backup.rotate_signing_key(Config(data=lab.data))
            assert made == Signer.open(lab.data).key_id not in known
        assert (lab.data / signing.KEY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("dies_at", [signing.NEXT_FILE, signing.CHAIN_FILE, "_finish", None])
def test_a_rotation_that_dies_is_whole_or_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str | None
) -> None:
    old = Signer.open(tmp_path)
    if dies_at is not None:

        def die_at(path: Path, content: bytes) -> None:
            if path.name == dies_at:
                raise KeyboardInterrupt
            write_private(path, content)

        with monkeypatch.context() as patched:
            if dies_at != "_finish":
                patched.setattr(signing, "write_private", die_at)
            else:
                # The first look, of `Signer.open`, finds nothing to finish.
                looks: list[Path] = []

                def die_second(path: Path) -> None:
                    looks.append(path)
                    if len(looks) > 1:
                        raise KeyboardInterrupt

                patched.setattr(signing, dies_at, die_second)
            with pytest.raises(KeyboardInterrupt):
                rotate(tmp_path, cluster="c", now=1)
    else:
        rotate(tmp_path, cluster="c", now=1)
    now = Signer.open(tmp_path)
    assert (now.key_id == old.key_id) is (dies_at in {signing.NEXT_FILE, signing.CHAIN_FILE})
    assert not (tmp_path / signing.NEXT_FILE).exists()
    newest = rotate(tmp_path, cluster="c", now=2)
    # Whoever knew the old one finds its way to the newest.
    keys = {old.key_id: old.public_key}
    found = learn(keys, key_chain(tmp_path), cluster="c", verifies=verifies)
    assert list(found)[-1] == newest.key_id == Signer.open(tmp_path).key_id


def test_a_spoilt_chain_is_said(tmp_path: Path) -> None:
    Signer.open(tmp_path)
    (tmp_path / signing.CHAIN_FILE).write_text("[")
    with pytest.raises(BadKeyFile, match="backup"):
        key_chain(tmp_path)


async def test_what_waits_with_an_old_signature_is_signed_again(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as one:
        node = await one.node("a", Behaviour(silent=True))
        async with node.connected():
            await one.submit(nodes=("a",))
            await node.wait(lambda: any(getattr(e, "attempts", ()) for e in node.received))
        folder = tmp_path / "new"
        folder.mkdir()
        new = Signer.open(folder)
        again = partial(
            dispatch.sign_again,
            signing=Signing(one.cluster_id, new.sign, one.secrets),
            key=new.key_id,
        )
        assert await one.database.write(again) == 1
        assert await one.database.write(again) == 0
        (row,) = await one.database.write(lambda tx: attempts.assigned(tx.connection))
        envelope = msgspec.json.decode(row.envelope or "", type=dispatch.Envelope)
        assert verifies(new.public_key, order_bytes(envelope), row.signature or b"")
