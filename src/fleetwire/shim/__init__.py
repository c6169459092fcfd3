"""One small process per attempt, and the fork server that makes them.

The laws of this room (architecture 1.4, 1.6, 5.2, 5.12, 5.16):

1. **Standard library only, and nothing else of ours.** A shim outlives the agent, its update and
   its removal, so it leans on nothing that these may change. Import little: what the spawner has
   imported, every shim carries.
2. **One process owns an attempt.** The shim holds the lock on the attempt's folder from its first
   step to its last; it owns pipes or pty, the process tree, the deadline and the exit record.
3. **At most one start.** `epoch` is created exclusively and fsynced before exec; whoever finds it
   there never executes again.
4. **`exit` means that nothing of the attempt lives**, and that every byte its processes wrote is
   in the spool.
5. **Nobody is waited for.** The agent may be dead: the deadline still strikes, the output is
   still written, the exit is still exact. The spawner may be dead: the shims do not notice.
6. **Never a pid alone.** A process is known by pid, start time and boot id, by being our child,
   or by the marker `FLEETWIRE_ATTEMPT` in its environment.

What passes between this room and the agent stands in docs/seams.md, section 1. The agent uses
three doors: `fleetwire.shim.spool` (the format), `fleetwire.shim.spawner` (`ensure`, `start`,
`bury`) and `fleetwire.shim.control` (`ask`).
"""
