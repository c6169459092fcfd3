"""Fleetwire: a self-hosted control plane for fleets of machines.

The tree and the laws are in `ARCHITECTURE.md`; one word per thing is in `GLOSSARY.md`.
Importing this package imports nothing else: each daemon pays only for what it uses.
"""

__version__ = "0.1.0"
