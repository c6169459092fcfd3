"""The swarm: thousands of simulated agents in one process, over the real protocol.

For load tests, and for whoever wants to know which machine a fleet's server needs. A simulated
agent dials, proves who it is, takes orders, reports and sends output exactly as a real one does
(`fleetwire.protocol` is the same code); only what it runs is made up (`behaviour`). It costs an
object and a socket: no task and no process of its own.
"""
