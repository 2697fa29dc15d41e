"""Two hosts and what is between them, for tests of links, connections, disks and faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.connection import Connection
from sim.distributions import Constant
from sim.faults import Fault, Faults
from sim.kernel import World
from sim.network import Hop, Host, Link, Network, NetworkSettings, Path, TcpSettings
from sim.stream import Stream

LOST, CUT, DOWN, BROKEN, TWICE = 1, 2, 3, 4, 5  # stand-ins for the causes of a system


class Rig:
    """A client and a server, `delay` seconds apart, and a record of what arrived and what was dropped.

    `arrived` holds (time, copy), `dropped` (time, copy, cause), `told` (time, what) of connections.
    """

    def __init__(self, seed: int = 1, delay: Any = 0.01, size: int = 1000, **settings: Any) -> None:
        tcp = {
            name: settings.pop(name) for name in list(settings) if name in TcpSettings.__dataclass_fields__
        }
        law = Constant(delay) if isinstance(delay, int | float) else delay
        self.world = World(seed)
        self.network = Network(self.world, NetworkSettings(delay=law, tcp=TcpSettings(**tcp), **settings))
        self.client, self.server = self.network.host("client"), self.network.host("server")
        self.size = size
        self.arrived: list[tuple[float, int]] = []
        self.dropped: list[tuple[float, int, int]] = []
        self.told: list[tuple[float, str]] = []
        self.parts: dict[str, Any] = {}

    # -- building ----------------------------------------------------------------------------------------------

    def hop(self, name: str) -> Hop:
        causes = {"lost": LOST, "cut": CUT, "down": DOWN, "broken": BROKEN, "twice": TWICE}
        return Hop(
            name,
            dropped=self._drop,
            duplicated=lambda copy, cause: -copy,
            size_of=lambda c: self.size,
            **causes,
        )

    def _drop(self, copy: int, cause: int) -> None:
        self.dropped.append((self.world.now, copy, cause))

    def link(self, source: Host | None = None, target: Host | None = None) -> Link:
        return self.network.link(source or self.client, target or self.server, self.hop("data"))

    def connection(self, client: Host | None = None, **options: Any) -> Connection:
        """A connection from the client to the server; what its ends are told is kept in `told`."""
        names = ("client_opened", "client_broken", "server_opened", "server_broken", "connect_failed")
        told = {name: self._telling(name, options.pop(name, None)) for name in names}
        return self.network.connection(
            client or self.client, self.server, self.hop("there"), self.hop("back"), **told, **options
        )

    def _telling(self, name: str, then: Callable[[], Any] | None) -> Callable[[], None]:
        def tell() -> None:
            self.told.append((self.world.now, name))
            if then is not None:
                then()

        return tell

    def connected(self, **options: Any) -> Connection:
        """A connection that is established; the time is that of its opening."""
        connection = self.connection(**options)
        connection.keep_open()
        while not connection.is_established:
            self.world.step()
        return connection

    def faults(self, *faults: Fault) -> Faults:
        """Carry out some faults; `parts` holds what their events refer to."""
        return Faults(self, faults)  # type: ignore[arg-type]

    def part(self, name: str) -> Any:
        return self.parts[name]

    # -- acting ------------------------------------------------------------------------------------------------

    def after(self, delay: float, function: Callable[..., Any], *args: Any) -> None:
        self.world.call_later(delay, function, *args)

    def run_for(self, seconds: float) -> None:
        self.world.run(until=self.world.now + seconds)

    def arrive(self, copy: int) -> None:
        self.arrived.append((self.world.now, copy))

    def send(self, path: Link | Stream, copy: int) -> None:
        path.send(self.arrive, copy)

    def send_every(self, spacing: float, count: int, *paths: Link | Stream) -> list[float]:
        """Send copies 0, 1 ... at equal distances, over the paths in turn; returns when (s)."""
        times = [self.world.now + i * spacing for i in range(count)]
        for i, time in enumerate(times):
            self.world.call_at(time, self.send, paths[i % len(paths)], i)
        return times

    def lose_next(self, path: Path, send: Callable[[], Any]) -> None:
        """Do `send` with its packet lost for certain."""
        path.flood(1.0)
        send()
        path.drain(1.0)

    # -- seeing ------------------------------------------------------------------------------------------------

    def times_of(self, what: str) -> list[float]:
        return [time for time, name in self.told if name == what]

    @property
    def copies(self) -> list[int]:
        return [copy for _, copy in self.arrived]
