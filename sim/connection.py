"""TCP-like connections: ordered and reliable until they break (sheet A; RFC 6298, RFC 5681, RFC 9293).

Inside a connection nothing is lost, doubled or reordered: a lost packet becomes a retransmission delay, and what was
sent after it waits behind it (head-of-line blocking). Loss of data happens only when the connection breaks. Then
everything on its way is gone, and each side learns of the break in its own time: by a reset from a process that died,
by the silence of its heartbeat, by giving up on unanswered data, or never (a half-open connection that only listens).

Heartbeats are not sent but reckoned with: a peer that is silent for too long, by a rule of `sim.heartbeats`, has the
effect that missing ones would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.heartbeats import Heartbeats, MissedHeartbeats
from sim.heartbeats import SampledHeartbeats as SampledHeartbeats
from sim.host import Host
from sim.network import Hop, Network, TcpSettings
from sim.stream import Stream

Nothing = Callable[[], Any]

SYN_RETRIES = 6  # tcp_syn_retries of Linux
SYN_LINEAR = 4  # tcp_syn_linear_timeouts of Linux from 6.5


def _nothing() -> None:
    """Nobody asked to be told."""


class End:
    """One end of a connection, as its machine's kernel knows it."""

    outgoing: Stream
    incoming: Stream
    peer: End

    def __init__(self, host: Host, opened: Nothing, broken: Nothing) -> None:
        self.host, self.opened, self.broken = host, opened, broken
        self.is_open = False
        self.silent_since: float | None = None
        self.lost_since = 0.0  # when its last connection ended, or had fallen silent before it did (s)
        self.audible_since = self.heard_at = 0.0

    def is_silent(self) -> bool:
        """Whether no heartbeat of the peer reaches this end."""
        incoming, peer = self.incoming, self.peer
        is_stalled = incoming.hole is not None and incoming.hole.timeouts > 0
        is_cut = incoming.cuts > 0 or incoming.loss >= 1.0
        return is_cut or is_stalled or not peer.is_open or not peer.host.is_running


class Connection:
    """Two streams between a client and a server, and how both ends learn that it is over.

    `keep_open()` connects and, whenever the connection is lost, connects again with exponential back-off.
    `client_opened`, `client_broken`, `server_opened` and `server_broken` are called as each process learns of it,
    `connect_failed` after each attempt to connect in vain. `number` counts the connections so far; what belongs to
    an old one never arrives. A server knows a client by its name: when it connects again, the server's end of the
    old connection is over (a takeover). `forget()` is for a client that has several servers to choose from: it
    closes the connection, which stays closed until `keep_open()` is called again.

    `accepts()` says whether the server's process listens: if not, it is refused, as if there were no process.

    `tcp` replaces the network's TCP settings for this connection, `heartbeats` the rule for silence that they give.
    """

    def __init__(
        self,
        network: Network,
        client: Host,
        server: Host,
        there: Hop,
        back: Hop,
        client_opened: Nothing = _nothing,
        client_broken: Nothing = _nothing,
        server_opened: Nothing = _nothing,
        server_broken: Nothing = _nothing,
        connect_failed: Nothing = _nothing,
        accepts: Callable[[], bool] = lambda: True,
        tcp: TcpSettings | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self.world, self.client, self.server = network.world, client, server
        self.tcp = tcp = tcp if tcp is not None else network.settings.tcp
        if heartbeats is None and tcp.heartbeat is not None:
            heartbeats = MissedHeartbeats(tcp.heartbeat, tcp.heartbeat_misses)
        self.heartbeats = heartbeats
        self._opened_at = self._phase = 0.0
        self.number = 0
        self._connect_failed, self._accepts = connect_failed, accepts
        self._is_wanted = False
        self._attempt = 0
        self._backoff = self.tcp.reconnect
        self._client_end = End(client, client_opened, client_broken)
        self._server_end = End(server, server_opened, server_broken)
        self._ends = (self._client_end, self._server_end)
        self.there = Stream(self, network, self._client_end, self._server_end, there, tcp)
        self.back = Stream(self, network, self._server_end, self._client_end, back, tcp)
        rto = network.rto(self.there.settings.delay, self.back.settings.delay, tcp.rto_min)
        for end, peer, outgoing, incoming in (
            (self._client_end, self._server_end, self.there, self.back),
            (self._server_end, self._client_end, self.back, self.there),
        ):
            end.peer, end.outgoing, end.incoming = peer, outgoing, incoming
            outgoing.reverse, outgoing.rto = incoming, rto
            end.host.connections.append(self)

    @property
    def is_established(self) -> bool:
        """Whether both ends are open."""
        return self._client_end.is_open and self._server_end.is_open

    @property
    def is_server_hearing(self) -> bool:
        """Whether the server's end is open, and its client not silent."""
        return self._server_end.is_open and not self._server_end.is_silent()

    @property
    def server_heard_at(self) -> float:
        """When the server's end last heard a client that is silent now (s)."""
        return self._server_end.heard_at

    @property
    def server_silent_since(self) -> float:
        """Since when the server has heard nothing of the client (s); infinity while it hears it."""
        end = self._server_end
        if not end.is_open:
            return end.lost_since
        return math.inf if end.silent_since is None else end.silent_since

    # -- opening -----------------------------------------------------------------------------------------------

    def keep_open(self) -> None:
        """Connect now, and again whenever the connection is lost."""
        self._is_wanted = True
        if self.client.is_up and not self._client_end.is_open:
            self._attempt += 1
            self._syn(self._attempt, 0, self.world.now)

    def forget(self) -> None:
        """The client wants it no more: close it, give up connecting, and do not come back."""
        self._is_wanted = False
        self._attempt += 1
        self._backoff = self.tcp.reconnect
        self.broken(self.client)

    def _is_stale(self, attempt: int) -> bool:
        return attempt != self._attempt or not self.client.is_up

    def _syn(self, attempt: int, retries: int, began: float) -> None:
        """A.6: a SYN. No answer comes if it is lost, if the machine is down, or if the answer is lost."""
        if self._is_stale(attempt):
            return
        transit = self.there.control_transit()
        if transit == math.inf:
            self._syn_unanswered(attempt, retries, began, self.world.now)
        else:
            self.world.call_later(transit, self._syn_arrives, attempt, retries, began, self.world.now)

    def _syn_arrives(self, attempt: int, retries: int, began: float, sent: float) -> None:
        if self._is_stale(attempt):
            return
        server = self.server
        if not server.is_up:
            server.touched += 1
        transit = self.back.control_transit() if server.is_machine_up else math.inf
        if transit == math.inf:
            self._syn_unanswered(attempt, retries, began, sent)
        elif server.is_up and self._accepts():
            self.world.call_later(transit, self._established, attempt, server.epoch)
        else:
            self.world.call_later(transit, self._failed, attempt)  # refused: nobody listens

    def _syn_unanswered(self, attempt: int, retries: int, began: float, sent: float) -> None:
        """Try again in a while, unless the application or the kernel gives up before that."""
        linear = SYN_LINEAR if self.tcp.syn_linear else 0
        again = max(sent + self.tcp.rto_initial * 2.0 ** max(0, retries - linear), self.world.now)
        gives_up = math.inf if self.tcp.connect_timeout is None else began + self.tcp.connect_timeout
        if retries == SYN_RETRIES + linear:
            gives_up = min(gives_up, again)
        if again < gives_up:
            self.world.call_at(again, self._syn, attempt, retries + 1, began)
        else:
            self.world.call_at(max(gives_up, self.world.now), self._failed, attempt)

    def _established(self, attempt: int, epoch: int) -> None:
        if self._is_stale(attempt):
            return
        if self.server.epoch != epoch:  # it died meanwhile
            self._failed(attempt)
            return
        self._end(self._server_end)
        self.number += 1
        self._opened_at = now = self.world.now
        if self.heartbeats is not None and self.heartbeats.has_phase:
            self._phase = float(self.world.stream(f"link.{self.there.name}.heartbeats").random())
        self._backoff = self.tcp.reconnect
        for end in self._ends:
            end.outgoing.begin()
            end.is_open = True
            end.silent_since = None
            end.audible_since = end.heard_at = now
        self.conditions_changed()
        for end in (self._server_end, self._client_end):
            end.host.tell(end.opened)

    def _failed(self, attempt: int) -> None:
        if not self._is_stale(attempt):
            self.client.tell(self._come_back_later, attempt)
            self.client.tell(self._connect_failed)

    def _come_back_later(self, attempt: int) -> None:
        if attempt == self._attempt:
            wait, self._backoff = self._backoff, min(2 * self._backoff, self.tcp.reconnect_max)
            self.client.call_later(wait, self._come_back, attempt)

    def _come_back(self, attempt: int) -> None:
        if attempt == self._attempt:
            self.keep_open()

    # -- breaking ----------------------------------------------------------------------------------------------

    def broken(self, side: Host) -> None:
        """One side finds the connection broken or closes it on purpose; the other hears of it if the path is there.

        What either had sent and the other has not read is lost, as with a reset: a server that closes on purpose
        and wants what it said before to arrive says so in a message, and lets the client close.
        """
        end = self._client_end if side is self.client else self._server_end
        if end.is_open:
            self._end(end)
            self._send_reset(end)

    def reset(self) -> None:
        """Something in the middle (a load balancer, a firewall) resets it towards both sides."""
        for end in self._ends:
            self._end(end)

    def answer_with_reset(self, end: End, at: float) -> None:
        """The peer's machine, where a segment of this end arrives at `at` (s), knows of no such connection."""
        if not end.incoming.cuts:
            self.world.call_at(at + end.incoming.control_delay(), self._reset_arrives, self.number, end)

    def _send_reset(self, end: End) -> None:
        if not end.outgoing.cuts:
            self.world.call_later(end.outgoing.control_delay(), self._reset_arrives, self.number, end.peer)

    def _reset_arrives(self, number: int, end: End) -> None:
        if number == self.number:
            self._end(end)

    def _end(self, end: End) -> None:
        """An end is over: what it had sent is lost, and its process is told."""
        if not end.is_open:
            return
        attempt = self._attempt
        end.lost_since = self.world.now if end.silent_since is None else end.silent_since
        end.is_open = False
        end.outgoing.drop()
        end.incoming.reader_gone()
        self.conditions_changed()
        end.host.tell(end.broken)
        if end is self._client_end:
            end.host.tell(self._come_back_later, attempt)

    def host_crashed(self, host: Host, kind: str) -> None:
        """A.9, D.1, D.2: a process that dies resets its connections; a machine that dies says nothing."""
        end = self._client_end if host is self.client else self._server_end
        if not end.is_open:
            return
        host.touched += 1
        end.is_open = False
        if kind == "process":
            end.outgoing.drop()
            self._send_reset(end)
        else:
            end.outgoing.abandon()
        end.incoming.reader_gone()
        self.conditions_changed()

    def host_paused(self, host: Host) -> None:
        """A process that stands still sends nothing, not even what it was busy sending."""
        end = self._client_end if host is self.client else self._server_end
        end.outgoing.take_back()
        self.check_silence()

    def host_restarted(self, host: Host) -> None:
        """A client that is up again connects anew. The old connection is unknown to the machine (see `Stream`)."""
        if host is self.client and self._is_wanted:
            self._backoff = self.tcp.reconnect
            self.keep_open()

    def conditions_changed(self) -> None:
        """A cut, a burst of loss or a slow spell has begun or ended, or an end was opened or is over."""
        for stream in (self.there, self.back):
            stream.choose()
            if not stream.is_well:
                stream.take_back()
            stream.way_back_changed()
        self.check_silence()

    # -- silence -----------------------------------------------------------------------------------------------

    def check_silence(self) -> None:
        """A.8: an end whose peer falls silent will notice, unless it hears from it again before that."""
        rule = self.heartbeats
        if rule is None:
            return
        now = self.world.now
        for end in self._ends:
            if not (end.is_open and end.is_silent()):
                if end.silent_since is not None:
                    end.silent_since, end.audible_since = None, now
            elif end.silent_since is None:
                hole = end.incoming.hole
                end.silent_since = now
                began = now if hole is None else hole.began
                last = rule.last_beat(self._opened_at, began, self._phase)
                if last >= end.audible_since:  # else it was lost in the silence before
                    end.heard_at = last
                if rule.hears_data:
                    end.heard_at = max(end.heard_at, end.incoming.last_received)
                due = max(now, rule.noticed(self._opened_at, end.heard_at))
                end.host.call_at(due, self._silence_noticed, end, now, self.number)

    def _silence_noticed(self, end: End, since: float, number: int) -> None:
        if number != self.number or end.silent_since != since:
            return
        if end.incoming.cuts:
            end.incoming.severed += 1
        elif not end.peer.host.is_running:
            end.peer.host.held += 1
        self.broken(end.host)
        end.silent_since = None
