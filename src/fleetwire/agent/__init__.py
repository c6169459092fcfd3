"""The daemon on a node: it dials out, starts attempts through the shim, and sends what they write.

Laws of this room:

1. *The folders are the truth.* What an attempt is stands in `spool/{attempt}/`; memory is a cache
   of it. The agent may be killed between any two instructions.
2. *Leaving is not stopping.* When the agent goes, attempts live on; the next agent adopts them.
3. *The receiver's length is the offset.* Nothing here remembers what was sent.
4. *Small.* A node runs this for years beside the work that matters: what is heavy is imported
   where it is used, nothing polls faster than once a second, an idle agent sleeps.
"""
