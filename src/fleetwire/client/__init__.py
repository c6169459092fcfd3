r"""The typed HTTP client, used by the CLI, the tests and by users' own programs.

    from fleetwire.client import Client, RunRequest, Script

    with Client("http://127.0.0.1:8080", token="...") as client:
        run = client.create_run(RunRequest(spec=Script("uname -a\n"), selector="os=linux"))
        for event in client.follow(run.id):
            ...

It is synchronous and made of sockets and msgspec alone, because what it imports is time that a
person waits for (docs/decisions/0101-cli-parser.md). A Client and
what it returns belong to one thread: make one Client for each thread.
"""

from fleetwire.client.api import Client
from fleetwire.client.connection import fetch_ca
from fleetwire.client.errors import (
    AnswerLost,
    BadAnswer,
    ClientError,
    Conflict,
    Gone,
    NoSuchNode,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    Problem,
    Rejected,
    ServerDistrusted,
    ServerFault,
    ServerUnreachable,
)
from fleetwire.client.follow import End, LogBytes, RunChanged, TaskChanged
from fleetwire.client.shapes import Log, Node, NodeEvent, Part, Run, System, Task, TimelineLine
from fleetwire.core.specs import Ping, RunRequest, Script, Scripted, Step

__all__ = [
    "AnswerLost",
    "BadAnswer",
    "Client",
    "ClientError",
    "Conflict",
    "End",
    "Gone",
    "Log",
    "LogBytes",
    "NoSuchNode",
    "Node",
    "NodeEvent",
    "NotAllowed",
    "NotFound",
    "NotLoggedIn",
    "Part",
    "Ping",
    "Problem",
    "Rejected",
    "Run",
    "RunChanged",
    "RunRequest",
    "Script",
    "Scripted",
    "ServerDistrusted",
    "ServerFault",
    "ServerUnreachable",
    "Step",
    "System",
    "Task",
    "TaskChanged",
    "TimelineLine",
    "fetch_ca",
]
