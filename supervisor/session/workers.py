"""Worker processes of the daemon: started by the launcher under a uid of their own, killed by their name there."""

from __future__ import annotations

from supervisor.linux import seqpacket
from supervisor.session.agent_ids import AgentIds
from supervisor.session.channel import Channel
from supervisor.session.launcher_client import LauncherClient
from supervisor.session.tasks import Tasks


class Worker:
    """One program; each start gives it another process.

    Args:
        program: Of the launcher's table.
        uids: Where it borrows its uid; None where everything has the caller's (rootless).
    """

    def __init__(self, launcher: LauncherClient, program: str, uids: AgentIds | None) -> None:
        self._launcher = launcher
        self._program = program
        self._uid = uids.lend() if uids is not None else None
        self._pid = 0
        self._tasks = Tasks()

    async def start(self) -> Channel:
        """Start it; returns our end of its socket.

        Raises:
            DeskwardenError: The launcher could not.
        """
        ours, theirs = seqpacket.pair()
        try:
            with theirs:
                answer, pidfds = await self._launcher.ask(
                    "worker", (theirs.fileno(),), program=self._program, uid=self._uid
                )
        except BaseException:
            ours.close()
            raise
        seqpacket.close_all(pidfds)
        self._pid = int(answer["pid"])
        return Channel(ours)

    def kill(self) -> None:
        """End it at once, if there is one."""
        if self._pid:
            kill = self._launcher.ask("kill", id=f"worker-{self._program}/{self._pid}")
            self._tasks.spawn(kill, f"kill {self._program} {self._pid}", may_fail=True)  # it may be gone by itself
            self._pid = 0
