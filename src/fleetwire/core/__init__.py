"""The laws: pure values and rules.

Nothing in here reads a clock, a socket, a disk or a source of randomness; time, ids and
random bytes are arguments (architecture, law 7). Everything can be tested by calling it.
"""
