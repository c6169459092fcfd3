"""The wire, sans-IO: bytes in, events out; intentions in, frames out.

No clock, no socket, no randomness: the shells (`agent.link`, `server.gateway`) own those, and
sign and verify when a conversation asks them to. Shape follows websockets' sans-IO core.
"""
