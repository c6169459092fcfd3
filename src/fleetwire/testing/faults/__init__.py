"""The fault lab: real server, agents, shims and tasks, killed, stopped, cut off and starved.

`system` holds what is under test, `load` submits tasks (`tasks`) to it, and the rounds (`kinds`
lists them) do harm meanwhile. `judge` decides from outside: by what the tasks wrote into their
books themselves and by the bytes that the API gives back. `runner` is the command.
"""
