"""Deterministic simulation: servers, agents, networks and disks in one process, from a seed.

The server's code is its own (gateway, loops, use cases, engine, log store), and so is the agent's
(link, roster, uploader, the spool's records and reader): below them are a virtual clock (`loop`),
SQLite with commits that can fail (`database`), rows in memory (`logs`), connections that break
(`network`), disks that forget what was not fsynced (`disk`, `system`). `shim` and `node` stand for
processes and machines, `people` for who uses them, `faults` for what fails. `invariants` judges by
the outside `ledger`; `runner` is the command.

`restore` puts an older record back.

Not simulated: several servers, a restored state directory, PostgreSQL.
"""
