"""One direction of a connection: segments in order, retransmitted until they come through (sheet A; RFC 6298).

A message is modelled as one segment. Acks are not sent but reckoned with: a cut of the way back has the effect that
missing ones would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappush
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from simpy.events import NORMAL

from sim.kernel import Handler
from sim.network import Hop, Network, Path, TcpSettings

if TYPE_CHECKING:
    from sim.connection import Connection, End

Segment = tuple[Handler, int, tuple[Any, ...]]


class _NobodyReads:
    """Stands for the reader of a stream while its process does not read."""

    is_running = False


class Stream(Path):
    """One direction of a connection: segments in order. `send(handler, copy, *args)` has the form of `Link.send`.

    `send_at(departure, handler, copy, *args)` does the same for a process that is busy with the segment until
    `departure` (s): what befalls the path or the process before that befalls the segment, and whatever is sent
    after it leaves after it.

    A segment is the sender's until it is handed over: when the sender's end is over first, it is reported to
    `hop.dropped`, once.
    """

    reverse: Stream

    def __init__(
        self, connection: Connection, network: Network, source: End, target: End, hop: Hop, tcp: TcpSettings
    ) -> None:
        super().__init__(network, source.host, target.host, hop)
        self.connection, self.tcp = connection, tcp
        self.source_end, self.target_end = source, target
        self.rto = self.tcp.rto_min
        self.in_flight: deque[Segment] = deque()  # on its way or in the peer's receive buffer
        self.unsent: deque[tuple[Segment, bool]] = deque()  # waits until it leaves; whether it is lost then
        self._busy_until = 0.0  # when the last segment of `send_at` leaves or has left
        self._reader: Any = self.target
        self._unread = 0  # of those in flight, how many lie in the receive buffer because nobody reads
        self._is_catching_up = False
        self.hole: Hole | None = None
        self._era = 0  # arrivals that were scheduled in an old era never happen
        self.last_arrival = 0.0
        self._unanswered_since: float | None = None
        self._control_delay: Callable[[], float] = self._first_control_delay
        self._control_chance = self._first_control_chance
        self.is_well = False
        self.send: Callable[..., None] = self._send_nowhere
        self.send_at: Callable[..., None] = self._send_nowhere_at

    @property
    def backlog(self) -> int:
        """How many segments were sent and not handed over: what fills the buffers of sockets."""
        return len(self.in_flight) + len(self.unsent) + (len(self.hole.waiting) if self.hole else 0)

    @property
    def last_received(self) -> float:
        """When the receiver's kernel got the last of what was sent, or will have got what is on its way (s)."""
        return self.last_arrival if self.in_flight else min(self.last_arrival, self.world.now)

    def held_copies(self) -> list[int]:
        """Copies that were sent and not handed over."""
        waiting = self.hole.waiting if self.hole is not None else []
        return (
            [copy for _, copy, _ in self.in_flight]
            + [segment[1] for _, segment in waiting]
            + [segment[1] for segment, _ in self.unsent]
        )

    def conditions_changed(self) -> None:
        """Let both ends see whether the peer can still be heard, and choose the ways to send anew."""
        self.connection.conditions_changed()

    def choose(self) -> None:
        """Choose the way to send under the present conditions."""
        is_in_trouble = self.cuts or self.reverse.cuts or self.hole is not None or not self.target_end.is_open
        self.is_well = False
        if not self.source_end.is_open:
            self.send, self.send_at = self._send_nowhere, self._send_nowhere_at
        elif self.unsent:
            self.send, self.send_at = self._send_behind, self._send_later
        elif is_in_trouble or self._bursts or self.settings.bandwidth or self._losses or self._factors:
            self.send, self.send_at = self._send_fully, self._send_later
        elif self.loss > 0:
            self.send, self.send_at, self.is_well = self._send_lossy, self._send_lossy_at, True
        else:
            self.send, self.send_at, self.is_well = self._send_plain, self._send_plain_at, True

    # -- sending -----------------------------------------------------------------------------------------------

    def _send_plain(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        delay = self.delay  # as a local: see `World.call_later`
        self.schedule(self.world.now + delay(), (handler, copy, args))

    def _send_lossy(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        if self._chance() < self.loss:
            self._lose(self.world.now, (handler, copy, args))
        else:
            self.schedule(self.world.now + self.delay(), (handler, copy, args))

    def _send_plain_at(self, departure: float, handler: Handler, copy: int, *args: Any) -> None:
        """As `_send_plain`, for a segment that leaves at `departure` (s), not before what was sent before it."""
        self.sent += 1
        if departure < self._busy_until:
            departure = self._busy_until
        if not departure >= self.world.now:
            raise ValueError(f"a segment cannot leave at {departure} s: it is {self.world.now} s")
        self._busy_until = departure
        delay, number = self.delay, self._next_number  # as locals: see `World.call_later`
        arrival = departure + delay()
        if self.last_arrival > arrival:
            arrival = self.last_arrival
        self.last_arrival = arrival
        self.in_flight.append((handler, copy, args))
        heappush(self._agenda, (arrival, NORMAL, number(), self._arrive, (self._era, departure)))

    def _send_lossy_at(self, departure: float, handler: Handler, copy: int, *args: Any) -> None:
        if self._chance() < self.loss:
            self.sent += 1
            self._lose(departure, (handler, copy, args))
        else:
            self._send_plain_at(departure, handler, copy, *args)

    def _send_fully(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        segment = (handler, copy, args)
        arrival = self.transmit(copy)
        if self.hole is not None:
            self.hole.behind(arrival, segment)
        elif arrival == math.inf:
            self._lacks(segment)
        else:
            self.schedule(arrival, segment)

    def _send_nowhere(self, handler: Handler, copy: int, *args: Any) -> None:
        self.sent += 1
        self.hop.dropped(copy, self.hop.broken)

    def _send_nowhere_at(self, departure: float, handler: Handler, copy: int, *args: Any) -> None:
        self._send_nowhere(handler, copy)

    def transmit(self, copy: int) -> float:
        """Put a segment on the wire; returns when it arrives (s), infinity if it is lost."""
        departure = self._departure(copy)
        if self.cuts:
            self.severed += 1
            return math.inf
        if (self.loss or self._bursts) and self._is_lost(self._chance()):
            return math.inf
        arrival = departure + self._transit(self.delay())
        if not self.target_end.is_open:
            self._nobody_at(arrival)
            return math.inf
        if self.reverse.cuts:
            self.reverse.severed += 1  # the ack meets the cut
            self._await_answer()
        return arrival

    def schedule(self, arrival: float, segment: Segment) -> None:
        """Hand a segment over at `arrival` (s), or behind what was sent before it (A.4)."""
        if arrival < self.last_arrival:
            arrival = self.last_arrival
        self.last_arrival = arrival
        self.in_flight.append(segment)
        number = self._next_number
        heappush(self._agenda, (arrival, NORMAL, number(), self._arrive, (self._era,)))

    def _lose(self, departure: float, segment: Segment) -> None:
        """A segment is lost as it leaves: at `departure` (s), not before what was sent before it."""
        departure = max(departure, self._busy_until)
        if departure > self.world.now:
            self._wait_to_leave(departure, segment, is_lost=True)
        else:
            self._lacks(segment)

    def _lacks(self, segment: Segment) -> None:
        if self.hole is not None:
            self.hole.behind(math.inf, segment)
        else:
            self.hole = Hole(self, segment)
            self.choose()

    # -- waiting to leave --------------------------------------------------------------------------------------

    def _send_behind(self, handler: Handler, copy: int, *args: Any) -> None:
        self._wait_to_leave(self._busy_until, (handler, copy, args))

    def _send_later(self, departure: float, handler: Handler, copy: int, *args: Any) -> None:
        if departure > self.world.now or self.unsent:
            self._wait_to_leave(departure, (handler, copy, args))
        else:
            self._send_fully(handler, copy, *args)

    def _wait_to_leave(self, departure: float, segment: Segment, is_lost: bool = False) -> None:
        """A segment leaves at `departure` (s) or when its sender's process goes on, behind those that wait."""
        self._busy_until = departure = max(departure, self._busy_until, self.world.now)
        self.unsent.append((segment, is_lost))
        self.source.call_at(departure, self._leave, self._era)
        if len(self.unsent) == 1:
            self.choose()

    def _leave(self, era: int) -> None:
        if era != self._era:
            return
        (handler, copy, args), is_lost = self.unsent.popleft()
        if is_lost:
            self._lacks((handler, copy, args))
        else:
            self._send_fully(handler, copy, *args)
        if not self.unsent:
            self.choose()

    def take_back(self) -> None:
        """What was scheduled to arrive and has not left yet waits to leave instead: conditions have changed."""
        taken = self._take_back()
        for departure, _ in taken:
            self.source.call_at(departure, self._leave, self._era)
        if taken:
            self.unsent.extendleft((segment, False) for _, segment in reversed(taken))
            self.choose()

    def _take_back(self) -> list[tuple[float, Segment]]:
        """Cancel the arrivals of what has not left yet; returns when each would leave (s), in order."""
        now, agenda = self.world.now, self._agenda
        if self._busy_until <= now:
            return []
        coming = sorted(e for e in agenda if e[3] == self._arrive and e[4][0] == self._era)
        departures = [e[4][1] if len(e[4]) == 2 else 0.0 for e in coming]
        first = next((i for i, departure in enumerate(departures) if departure > now), len(coming))
        cancelled = {e[2] for e in coming[first:]}
        if not cancelled:
            return []
        agenda[:] = [e for e in agenda if e[2] not in cancelled]
        heapify(agenda)
        self.last_arrival = coming[first - 1][0] if first else now
        self.sent -= len(cancelled)
        segments = [self.in_flight.pop() for _ in cancelled]
        return list(zip(accumulate(departures[first:], max), reversed(segments), strict=True))

    # -- arriving ----------------------------------------------------------------------------------------------

    def _arrive(self, era: int, departure: float = 0.0) -> None:
        if era != self._era:
            return
        if self._reader.is_running and self.target_end.is_open:
            handler, copy, args = self.in_flight.popleft()
            handler(copy, *args)
        elif self.target.is_up and self.target_end.is_open:
            # received and acked by the kernel, not read by the process
            if self._reader is self.target:
                self.target.hold(self._arrive, (era,))
            else:
                self._unread += 1
        else:
            self._arrive_nowhere()

    def _arrive_nowhere(self) -> None:
        segment = self.in_flight.popleft()
        if not self.source_end.is_open:  # nobody would send it again
            self.hop.dropped(segment[1], self.hop.broken)
            return
        self._nobody_at(self.world.now)
        self._lacks(segment)

    def _nobody_at(self, arrival: float) -> None:
        """A segment reaches a machine that is down, or one that knows of no such connection and answers so."""
        if not self.target.is_up:
            self.target.touched += 1
        if self.target.is_machine_up:
            self.connection.answer_with_reset(self.source_end, arrival)

    # -- a process that does not read --------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """The receiving process reads no more for now: what arrives fills its kernel's receive buffer."""
        self._reader = _NobodyReads

    def resume_reading(self) -> None:
        """The receiving process reads again: at once what its kernel has received meanwhile, in order."""
        self._reader = self.target
        if self._is_catching_up:
            return  # what it reads lets it read on: the loop below goes on
        self._is_catching_up = True
        while self._unread and self._reader is self.target:
            self._unread -= 1
            if self.target_end.is_open:
                self._arrive(self._era)
        self._is_catching_up = False

    def reader_gone(self) -> None:
        """The receiver's end is over. What it had not read is lost; a sender that is over as well has no word of it."""
        self._reader = self.target
        unread, self._unread = self._unread, 0
        if not self.source_end.is_open:
            for _ in range(unread):
                self.hop.dropped(self.in_flight.popleft()[1], self.hop.broken)

    # -- ending ------------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """The sender's end is over, and so is all that it has sent and was not handed over (A.9)."""
        self._era += 1
        lost = [*self.in_flight]
        self.in_flight.clear()
        self._unread = 0
        self._unanswered_since = None
        self.abandon()
        for _, copy, _ in lost:
            self.hop.dropped(copy, self.hop.broken)

    def abandon(self) -> None:
        """Nobody retransmits or sends any more: what waits for that is lost, what is on its way arrives."""
        hole, self.hole = self.hole, None
        waiting = [segment for _, segment in hole.waiting] if hole is not None else []
        waiting += [segment for _, segment in self._take_back()]
        waiting += [segment for segment, _ in self.unsent]
        self.unsent.clear()
        self._busy_until = 0.0
        for _, copy, _ in waiting:
            self.hop.dropped(copy, self.hop.broken)

    def begin(self) -> None:
        """A new connection begins, with nothing on its way."""
        self.drop()
        self._reader = self.target
        self.last_arrival = self._free_at = self.world.now

    # -- acks that do not come ---------------------------------------------------------------------------------

    def way_back_changed(self) -> None:
        """Data whose acks meet a cut is sent again and again, until it is acked or TCP gives up (A.7)."""
        if not self.reverse.cuts:
            self._unanswered_since = None
        elif self.in_flight and self.last_arrival >= self.world.now:
            self._await_answer()

    def _await_answer(self) -> None:
        if self._unanswered_since is None:
            self._unanswered_since = now = self.world.now
            patience = give_up_after(self.rto, self.tcp.rto_max, self.tcp.retries)
            self.world.in_background(patience, self._unanswered, self.connection.number, now)

    def _unanswered(self, number: int, since: float) -> None:
        if number == self.connection.number and since == self._unanswered_since:
            self.connection.broken(self.source)

    # -- packets without data ----------------------------------------------------------------------------------

    def control_transit(self) -> float:
        """Seconds until a SYN, sent now, arrives; infinity if it is lost. Draws from streams of their own."""
        if self.cuts:
            self.severed += 1
            return math.inf
        if (self.loss or self._bursts) and self._is_lost(self._control_chance()):
            return math.inf
        return self.control_delay()

    def control_delay(self) -> float:
        """Seconds that a packet without data takes (an ack, a reset)."""
        return self._transit(self._control_delay())

    def _first_control_delay(self) -> float:
        self._control_delay = self.settings.delay.draws(self.world.stream(f"link.{self.name}.control.delay"))
        return self._control_delay()

    def _first_control_chance(self) -> float:
        self._control_chance = self.world.uniforms(f"link.{self.name}.control.loss")
        return self._control_chance()


class Hole:
    """The oldest segment that is missing in a stream, and what was sent after it.

    The retransmission timer sends it again after RTO (2^k - 1) for k losses in a row (A.2), until TCP gives up (A.7).
    The acks of three later segments make the sender do so sooner (A.3, N-04). When it has come through, what waited
    behind it follows; of that, what is missing as well is sent again a round trip later.

    `waiting` holds segments in order, each with its arrival (s), which is infinite while it is missing.
    """

    def __init__(self, stream: Stream, segment: Segment) -> None:
        self.stream = stream
        self.world = stream.world
        self.began = self.world.now
        self.waiting: list[tuple[float, Segment]] = [(math.inf, segment)]
        self.timeouts = 0
        self._later = 0
        self._is_partly_filled = False
        self._wait(max(self.world.now, stream._free_at) + stream.rto, self._timed_out)

    def behind(self, arrival: float, segment: Segment) -> None:
        """A later segment: it waits, and its arrival may trigger the fast retransmission."""
        self.waiting.append((arrival, segment))
        stream = self.stream
        if arrival == math.inf or self.timeouts or not stream.tcp.fast_retransmit or stream.reverse.cuts:
            return
        self._later += 1
        if self._later == 3:
            third_ack = arrival + stream.reverse.control_delay()
            if third_ack < self._due:
                self._wait(third_ack, self._acks_came)

    def _wait(self, due: float, then: Callable[[float], None]) -> None:
        self._due = due
        self.world.call_at(due, then, due)

    def _is_current(self, due: float) -> bool:
        return self.stream.hole is self and due == self._due

    def _timed_out(self, due: float) -> None:
        if self._is_current(due):
            self.timeouts += 1
            self._send_again(only_oldest=True)

    def _acks_came(self, due: float) -> None:
        if self._is_current(due):
            self._send_again(only_oldest=not self._is_partly_filled)

    def _send_again(self, only_oldest: bool) -> None:
        stream, waiting = self.stream, self.waiting
        for i, (arrival, segment) in enumerate(waiting):
            if arrival == math.inf:
                waiting[i] = (stream.transmit(segment[1]), segment)
                if only_oldest:
                    break
        if waiting[0][0] < math.inf:
            self._release()
            return
        if (
            self.timeouts > stream.tcp.retries
        ):  # the last one goes out as the time is up (A.7: at least 924.6 s)
            stream.connection.broken(stream.source)
            return
        wait = min(stream.rto * 2.0**self.timeouts, stream.tcp.rto_max)
        self._wait(self.world.now + wait, self._timed_out)
        stream.connection.check_silence()

    def _release(self) -> None:
        """The oldest segment comes through: so does what follows, up to the next one that is missing."""
        stream, waiting = self.stream, self.waiting
        missing = [i for i, (arrival, _) in enumerate(waiting) if arrival == math.inf]
        count = missing[0] if missing else len(waiting)
        for arrival, segment in waiting[:count]:
            stream.schedule(arrival, segment)
        del waiting[:count]
        if waiting:
            self.timeouts = 0
            self._is_partly_filled = True
            self._wait(stream.last_arrival + stream.reverse.control_delay(), self._acks_came)
        else:
            stream.hole = None
            stream.conditions_changed()


def retransmission_delay(rto: float, rto_max: float, losses: int) -> float:
    """Seconds that `losses` consecutive losses of one segment add: RTO (2^k - 1), each wait at most RTO_max (A.2)."""
    return math.fsum(min(rto * 2.0**i, rto_max) for i in range(losses))


def give_up_after(rto: float, rto_max: float, retries: int) -> float:
    """Seconds until TCP gives up on unanswered data: 924.6 for 15 retries from 0.2 s (A.7)."""
    return retransmission_delay(rto, rto_max, retries + 1)
