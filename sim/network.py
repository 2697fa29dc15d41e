"""Paths between hosts, and datagram links on them.

A path is one direction between two hosts; a link sends datagrams over it. The ordered, reliable kind of path is in
`sim.connection`. Numbers N-01 ... and letters A ... are those of the sheet "Network, faults, statistics".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from heapq import heappush
from typing import TYPE_CHECKING, Any

from simpy.events import NORMAL

from sim.distributions import Constant, Distribution
from sim.host import Host as Host
from sim.host import Resident as Resident
from sim.kernel import Handler, World
from sim.units import BytesPerSecond, Fraction, Seconds

if TYPE_CHECKING:
    from sim.connection import Connection


@dataclass(frozen=True)
class LossBursts:
    """Gilbert-Elliott loss: a link alternates between good and bad states of exponential length (sheet B)."""

    loss: Fraction = 1.0
    every: Seconds = 60.0
    lasting: Seconds = 1.0


@dataclass(frozen=True)
class LinkSettings:
    """One direction between two hosts."""

    delay: Distribution = Constant(0.001)
    loss: Fraction = 0.0
    duplicate: Fraction = 0.0
    bandwidth: BytesPerSecond | None = None
    bursts: LossBursts | None = None


@dataclass(frozen=True)
class TcpSettings:
    """How a connection retransmits, gives up and comes back (sheet A; RFC 6298, Linux defaults).

    Connecting: SYNs a second apart at first (`syn_linear`, Linux from 6.5) or at doubling intervals from the start,
    until `connect_timeout`, or without one until the kernel gives up after 131 or 127 s. Connected: unanswered data
    is sent again after RTO, doubling from `rto_min` to `rto_max`, `retries` times. A `heartbeat` every so many
    seconds tells each side that the other is there; after `heartbeat_misses` missed ones it is not. A client whose
    connection is lost connects again after `reconnect`, doubling up to `reconnect_max`.
    """

    rto_min: Seconds = 0.2
    rto_initial: Seconds = 1.0
    rto_max: Seconds = 120.0
    retries: int = 15
    fast_retransmit: bool = True
    syn_linear: bool = True
    connect_timeout: Seconds | None = 5.0
    heartbeat: Seconds | None = None
    heartbeat_misses: int = 2
    reconnect: Seconds = 0.1
    reconnect_max: Seconds = 5.0


@dataclass(frozen=True)
class NetworkSettings:
    """The links between all hosts: one default, and exceptions under `links` ("shop -> orders", "shop <-> orders").

    A host is named by its group or its own name: "billing" stands for "billing.1", "billing.2" ...; "*" for any.
    """

    delay: Distribution = Constant(0.001)
    loss: Fraction = 0.0
    duplicate: Fraction = 0.0
    bandwidth: BytesPerSecond | None = None
    bursts: LossBursts | None = None
    tcp: TcpSettings = TcpSettings()
    links: dict[str, LinkSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class Hop:
    """What travels on a link, for the books: the causes of its losses (codes of `sim.ledger`), and its size.

    `dropped(copy, cause)` is told of every loss; `duplicated(copy, cause)` names the second copy of a datagram.
    `size_of(copy)` gives bytes, asked only where bandwidth is limited. `bound_for(copy)` names the books of those who
    would be handed a copy that is on its way; nobody for what carries none.
    """

    name: str
    lost: int = 0
    cut: int = 0
    down: int = 0
    broken: int = 0
    twice: int = 0
    dropped: Callable[[int, int], Any] = lambda copy, cause: None
    duplicated: Callable[[int, int], int] = lambda copy, cause: copy
    size_of: Callable[[int], int] = lambda copy: 64
    bound_for: Callable[[int], Iterable[Any]] = lambda copy: ()


class Path:
    """One direction between two hosts, whatever travels on it: what faults can do to it, and the draws of its delay.

    What they acted on is counted: `severed` by a cut, `flooded` by a burst of loss, `slowed` by a slow spell.
    """

    def __init__(self, network: Network, source: Host, target: Host, hop: Hop) -> None:
        self.world, self.source, self.target, self.hop = network.world, source, target, hop
        self.settings = settings = network.settings_between(source, target)
        self.name = network.name_of(source, target, hop)
        self.cuts = 0
        self.loss = settings.loss
        self.slowness = 1.0
        self.sent = 0
        self.severed = self.flooded = self.slowed = 0
        self.delay = settings.delay.draws(self.world.stream(f"link.{self.name}.delay"))
        self._chance: Callable[[], float] = self._first_chance
        self._bursts = Bursts(self.world, self.name, settings.bursts) if settings.bursts else None
        self._free_at = 0.0
        self._agenda, self._next_number = self.world.agenda, self.world.next_number
        self._losses: list[float] = []
        self._factors: list[float] = []
        network.links.append(self)

    def held_copies(self) -> Iterable[int]:
        """Copies on their way that are not on the world's agenda by themselves."""
        return ()

    def _first_chance(self) -> float:
        """Open the stream when it is first needed: most of very many links lose nothing."""
        self._chance = self.world.uniforms(f"link.{self.name}.loss")
        return self._chance()

    def conditions_changed(self) -> None:
        """Choose the way to send anew: after a cut, a burst of loss or a slow spell has begun or ended."""
        raise NotImplementedError

    def _departure(self, copy: int) -> float:
        """When a copy that is sent now has left (s): behind what was sent before it, at the bandwidth."""
        now, bandwidth = self.world.now, self.settings.bandwidth
        if not bandwidth:
            return now
        self._free_at = max(now, self._free_at) + self.hop.size_of(copy) / bandwidth
        return self._free_at

    def _is_lost(self, chance: float) -> bool:
        """Whether a packet with that draw is lost under the present conditions."""
        if chance < self.settings.loss:
            return True
        if chance < self.loss:
            self.flooded += 1
            return True
        return self._bursts is not None and self._bursts.is_bad(self.world.now) and chance < self._bursts.loss

    def _transit(self, delay: float) -> float:
        """Seconds on the way, of a draw of the delay."""
        if self.slowness == 1.0:
            return delay
        self.slowed += 1
        return delay * self.slowness

    # -- verbs of faults ---------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Let nothing pass any more."""
        self.cuts += 1
        self.conditions_changed()

    def mend(self) -> None:
        """Undo one cut."""
        self.cuts -= 1
        self.conditions_changed()

    def flood(self, loss: float) -> None:
        """Lose that share of packets: the worst of several floods and of the link's own loss."""
        self._losses.append(loss)
        self._loss_changed()

    def drain(self, loss: float) -> None:
        """Undo one flood."""
        self._losses.remove(loss)
        self._loss_changed()

    def _loss_changed(self) -> None:
        self.loss = max(self.settings.loss, *self._losses) if self._losses else self.settings.loss
        self.conditions_changed()

    def slow_down(self, factor: float) -> None:
        """Multiply delays by `factor`, on top of what slows it already."""
        self._factors.append(factor)
        self._slowness_changed()

    def speed_up(self, factor: float) -> None:
        """Undo one `slow_down` by that factor."""
        self._factors.remove(factor)
        self._slowness_changed()

    def _slowness_changed(self) -> None:
        self.slowness = math.prod(self._factors)
        self.conditions_changed()


class OnItsWay(int):
    """The priority of an arrival on the agenda, which says as well what hop it is on."""

    hop: Hop


class Link(Path):
    """One direction of a datagram path: each datagram is lost, delayed or doubled on its own (sheet B).

    `send(handler, copy, *args)` calls `handler(copy, *args)` on the target's side after the delay. What is sent while
    the path is cut is lost; what is on its way when the cut begins has passed it. Delays are independent, so
    datagrams overtake each other (N-11).
    """

    def __init__(self, network: Network, source: Host, target: Host, hop: Hop) -> None:
        super().__init__(network, source, target, hop)
        self._on_its_way = OnItsWay(NORMAL)
        self._on_its_way.hop = hop
        if self.settings.duplicate:
            self._chance_twice = self.world.uniforms(f"link.{self.name}.duplicate")
        self.send = self._choose()

    def _choose(self) -> Callable[..., None]:
        """The way to send under the present conditions: optional features cost nothing when they are off."""
        if self.cuts:
            return self._send_into_cut
        settings = self.settings
        if settings.bandwidth or settings.duplicate or self._bursts or self._losses or self._factors:
            return self._send_fully
        if self.target.is_steady:
            return self._steady()
        return self._send_lossy if self.loss > 0 else self._send_plain

    def conditions_changed(self) -> None:
        """Choose the way to send anew."""
        self.send = self._choose()

    def _send_plain(self, handler: Handler, *args: Any) -> None:
        self.sent += 1
        time = self.world.now + self.delay()
        heappush(self._agenda, (time, NORMAL, self._next_number(), self._arrive, (handler, args)))

    def _send_lossy(self, handler: Handler, *args: Any) -> None:
        self.sent += 1
        if self._chance() < self.loss:
            self._lose(args[0])
        else:  # `World.call_later` written out: this is half of all events
            time = self.world.now + self.delay()
            heappush(self._agenda, (time, NORMAL, self._next_number(), self._arrive, (handler, args)))

    def _steady(self) -> Callable[..., None]:
        """A way to send to a host that nothing befalls: the agenda itself hands over what arrives."""
        world, agenda, next_number, on_its_way = self.world, self._agenda, self._next_number, self._on_its_way
        delay, loss = self.delay, self.loss
        chance = self.world.uniforms(f"link.{self.name}.loss") if loss else float

        def send(handler: Handler, *args: Any) -> None:
            self.sent += 1
            if loss and chance() < loss:
                self._lose(args[0])
            else:
                heappush(agenda, (world.now + delay(), on_its_way, next_number(), handler, args))

        return send

    def _send_fully(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        self._transmit(handler, copy, args)
        if self.settings.duplicate and self._chance_twice() < self.settings.duplicate:
            self._transmit(handler, self.hop.duplicated(copy, self.hop.twice), args)

    def _transmit(self, handler: Handler, copy: int, args: tuple[Any, ...]) -> None:
        departure = self._departure(copy)
        if (self.loss or self._bursts) and self._is_lost(self._chance()):
            self._lose(copy)
        else:
            self.world.call_at(departure + self._transit(self.delay()), self._arrive, handler, (copy, *args))

    def _send_into_cut(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        self.severed += 1
        self.delay()  # every datagram takes its draws, so that those of later ones do not depend on its fate
        if self.settings.loss or self._bursts:
            self._chance()
        self.hop.dropped(copy, self.hop.cut)

    def _lose(self, copy: int) -> None:
        self.delay()
        self.hop.dropped(copy, self.hop.lost)

    def _arrive(self, handler: Handler, args: tuple[Any, ...]) -> None:
        target = self.target
        if target.is_running:
            handler(*args)
        elif target.is_up:
            target.hold(handler, args, self._unread)
        else:
            target.touched += 1
            self.hop.dropped(args[0], self.hop.down)

    def _unread(self, copy: int, *args: Any) -> None:
        """The target's process crashed before it read what its kernel had received."""
        self.hop.dropped(copy, self.hop.down)


class Bursts:
    """The good and bad states of a Gilbert-Elliott link, advanced when somebody looks."""

    def __init__(self, world: World, name: str, settings: LossBursts) -> None:
        self.loss = settings.loss
        self._random = world.stream(f"link.{name}.bursts")
        self._means = (settings.every, settings.lasting)
        self._bad = False
        self._until = self._random.exponential(settings.every)

    def is_bad(self, now: float) -> bool:
        """Whether the link is in its bad state at `now` (s); asked with times that never fall."""
        while now >= self._until:
            self._bad = not self._bad
            self._until += self._random.exponential(self._means[self._bad])
        return self._bad


class Network:
    """All links between all hosts."""

    def __init__(self, world: World, settings: NetworkSettings) -> None:
        self.world, self.settings = world, settings
        self.hosts: dict[str, Host] = {}
        self.links: list[Path] = []
        self._names: Counter[str] = Counter()
        self._measured_rtos: dict[tuple[Distribution, Distribution], float] = {}

    def host(self, name: str, group: str | None = None) -> Host:
        """The host of that name, made when it is first asked for."""
        if name not in self.hosts:
            self.hosts[name] = Host(self.world, name, group)
        return self.hosts[name]

    def nothing_fails(self) -> None:
        """No fault will strike in this run: hosts and links need not look out for one."""
        for host in self.hosts.values():
            if not host.may_stop:
                host.be_steady()
        for link in self.links:
            link.conditions_changed()

    def named(self, target: str) -> list[Host]:
        """The hosts that a target means: one by its name, all of a group, or "*". Raises ValueError for none."""
        found = [host for host in self.hosts.values() if _matches(target, host)]
        if not found:
            known = [*dict.fromkeys(name for host in self.hosts.values() for name in (host.group, host.name))]
            near = get_close_matches(target, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"expected a host or a group of hosts, found {target!r}; {hint}")
        return found

    def name_of(self, source: Host, target: Host, hop: Hop) -> str:
        """A name for one more path, by which its random streams are found: parallel ones are numbered."""
        name = f"{source.name}->{target.name}.{hop.name}"
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def settings_between(self, source: Host, target: Host) -> LinkSettings:
        """The settings of one direction: the most exact entry of `links`, else the network's default."""
        best, rank = None, -1
        for text, settings in self.settings.links.items():
            for a, b in directions(text):
                if _matches(a, source) and _matches(b, target):
                    exactness = 2 * (a == source.name) + 2 * (b == target.name) + (a != "*") + (b != "*")
                    if exactness > rank:
                        best, rank = settings, exactness
        if best is not None:
            return best
        default = self.settings
        return LinkSettings(default.delay, default.loss, default.duplicate, default.bandwidth, default.bursts)

    def rto(self, there: Distribution, back: Distribution, rto_min: float) -> float:
        """The retransmission timeout (s) that a long connection with these delays has measured (A.1).

        max(RTO_min, SRTT + 4 RTTVAR) of RFC 6298, over a sample of 256 round trips.
        """
        if (there, back) not in self._measured_rtos:
            draws = [
                delay.draws(self.world.stream(f"rto.{way}.{there!r}.{back!r}"))
                for way, delay in (("there", there), ("back", back))
            ]
            sample = [draws[0]() + draws[1]() for _ in range(256)]
            mean = math.fsum(sample) / len(sample)
            deviation = math.fsum(abs(x - mean) for x in sample) / len(sample)
            self._measured_rtos[there, back] = mean + 4 * deviation
        return max(rto_min, self._measured_rtos[there, back])

    def link(self, source: Host, target: Host, hop: Hop) -> Link:
        """A datagram link of one direction and purpose."""
        return Link(self, source, target, hop)

    def connection(self, client: Host, server: Host, there: Hop, back: Hop, **options: Any) -> Connection:
        """A connection that `client` opens to `server`; its callbacks and other options as in `Connection`."""
        from sim.connection import Connection

        return Connection(self, client, server, there, back, **options)

    def in_transit(self) -> Iterator[tuple[Hop, int]]:
        """Every copy that is on its way, and the hop that it is on."""
        for _, priority, _, function, args in self.world.agenda:
            owner = getattr(function, "__self__", None)
            if isinstance(priority, OnItsWay):
                yield priority.hop, args[0]
            elif isinstance(owner, Link):
                yield owner.hop, args[1][0]
        for path in self.links:
            for copy in path.held_copies():
                yield path.hop, copy

    def between(self, text: str) -> list[Path]:
        """The links that "a -> b" (one way) or "a <-> b" (both) means."""
        return [
            link
            for link in self.links
            if any(_matches(a, link.source) and _matches(b, link.target) for a, b in directions(text))
        ]


def directions(text: str) -> list[tuple[str, str]]:
    """ "a -> b" and "a <-> b" as pairs (source, target). Raises ValueError for anything else."""
    both = "<->" in text
    a, found, b = (part.strip() for part in text.partition("<->" if both else "->"))
    if a and found and b:
        return [(a, b), (b, a)] if both else [(a, b)]
    raise ValueError(f'expected two ends such as "shop -> orders" or "shop <-> orders", found {text!r}')


def _matches(name: str, host: Host) -> bool:
    return name in ("*", host.name, host.group)
