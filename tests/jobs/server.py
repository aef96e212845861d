"""A server with nothing but jobs, as a process of its own that tests may kill. A line "stop" on its stdin stops it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.jobs.store import JobStore
from engine.jobs.supervisor import Supervisor
from engine.workspace import Workspace
from tests.jobs.kinds import kinds


def main() -> None:
    workspace = Workspace(Path(sys.argv[1])).create()
    supervisor = Supervisor(
        JobStore(workspace.database), kinds(), workspace, "cpu", "tests.jobs.kinds:setup", save_every=0.0, grace=3.0
    )
    supervisor.start()
    supervisor.wait_ready()
    print(json.dumps({"worker": supervisor.request("pid"), "torch": "torch" in sys.modules}), flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    supervisor.stop()


if __name__ == "__main__":
    main()
