"""Links and connections: N-01 to N-12 of the sheet, and the rules of its sections A and B that they rest on."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from sim.connection import Connection
from sim.distributions import Constant, Exponential
from sim.host import Host
from sim.network import LinkSettings, LossBursts
from sim.stream import give_up_after, retransmission_delay
from tests.conformance.rig import BROKEN, CUT, DOWN, LOST, Rig

Z = 3.2905  # two-sided 99.9 % of the normal distribution: the confidence of every stochastic bound below


def bound(p: float, n: int) -> float:
    """How far a share of n independent trials may be from its probability p."""
    return Z * math.sqrt(p * (1 - p) / n)


# -- N-01 ... N-05: a stream, its retransmissions and what waits behind them -------------------------------------------


def test_N01_a_connection_without_loss_delivers_everything_in_order_after_exactly_its_delay():
    rig = Rig(delay=0.01)
    sent = rig.send_every(0.001, 1000, rig.connected().there)
    rig.world.run()
    assert rig.arrived == [(time + 0.01, i) for i, time in enumerate(sent)]
    assert rig.dropped == []


def test_N01_size_over_bandwidth_is_added_to_the_delay_and_a_busy_wire_makes_messages_queue():
    rig = Rig(delay=0.01, bandwidth=1e6, size=1000)  # 1 ms on the wire
    idle = rig.send_every(0.002, 500, rig.connected().there)
    rig.world.run()
    assert [time for time, _ in rig.arrived] == pytest.approx([time + 0.011 for time in idle])

    rig = Rig(delay=0.01, bandwidth=1e6, size=1000)
    busy = rig.send_every(0.0005, 500, rig.connected().there)
    rig.world.run()
    assert [time for time, _ in rig.arrived] == pytest.approx(
        [busy[0] + 0.001 * (i + 1) + 0.01 for i in range(500)]
    )


def test_N01_varying_delays_keep_the_order():
    rig = Rig(delay=Exponential(0.01))
    sent = rig.send_every(0.001, 1000, rig.connected().there)
    rig.world.run()
    assert rig.copies == list(range(1000))
    assert any(a == b for (a, _), (b, _) in pairwise(rig.arrived)), (
        "a slow message holds those behind it (A.4)"
    )
    assert all(arrival >= time for (arrival, _), time in zip(rig.arrived, sent, strict=True))


def test_N02_a_lost_message_comes_late_by_the_retransmission_timeouts():
    n, p = 20_000, 0.05
    rig = Rig(delay=0.01, loss=p)
    stream = rig.connected().there
    for i in range(n):  # one at a time
        rig.send(stream, i)
        began = rig.world.now
        while len(rig.arrived) == i:
            rig.world.step()
        rig.arrived[i] = (round(rig.world.now - began - 0.01, 9), i)
        rig.run_for(0.5)
    extra = [late for late, _ in rig.arrived]
    atoms = [0.0, 0.2, 0.6, 1.4]
    assert rig.copies == list(range(n)) and rig.dropped == []
    assert set(extra) <= {round(retransmission_delay(0.2, 120.0, k), 9) for k in range(8)}
    weights = [(1 - p) * p**k for k in range(3)]
    expected = [n * w for w in (*weights, 1 - sum(weights))]
    seen = [extra.count(atom) for atom in atoms[:3]]
    seen.append(n - sum(seen))
    chi_square = sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True))
    assert chi_square < 16.27  # 3 degrees of freedom, 99.9 %
    variance = sum((1 - p) * p**k * retransmission_delay(0.2, 120.0, k) ** 2 for k in range(20))
    exact = 0.2 * p / (1 - 2 * p)
    assert math.fsum(extra) / n == pytest.approx(exact, abs=Z * math.sqrt((variance - exact**2) / n))


def one_loss(fast_retransmit: bool, connections: int = 1) -> tuple[Rig, list[float]]:
    """1000 messages a second over some connections in turn, of which number 500 loses its first copy."""
    rig = Rig(delay=0.01, fast_retransmit=fast_retransmit)
    opened = [rig.connection() for _ in range(connections)]
    for connection in opened:
        connection.keep_open()
    rig.run_for(1.0)
    streams = [connection.there for connection in opened]
    sent = rig.send_every(0.001, 500, *streams)
    rig.run_for(0.5)
    rig.lose_next(streams[0], lambda: rig.send(streams[0], 500))
    sent.append(rig.world.now)
    for i in range(501, 1000):
        sent.append(sent[500] + 0.001 * (i - 500))
        rig.world.call_at(sent[i], rig.send, streams[i % connections], i)
    rig.world.run()
    return rig, sent


def held(rig: Rig, sent: list[float]) -> list[int]:
    """Copies that came later than their delay."""
    return sorted(copy for time, copy in rig.arrived if time > sent[copy] + 0.01 + 1e-9)


def test_N03_one_loss_holds_the_stream_for_an_rto_and_then_releases_a_burst():
    rig, sent = one_loss(fast_retransmit=False)
    assert rig.copies == list(range(1000))
    late = held(rig, sent)
    assert late == list(range(500, 500 + len(late)))
    assert 199 <= len(late) <= 201  # rate x RTO
    assert {round(time - sent[500], 9) for time, copy in rig.arrived if copy in late} == {0.21}


def test_N04_fast_retransmit_shortens_the_stall_to_a_round_trip_and_three_spacings():
    rig, sent = one_loss(fast_retransmit=True)
    assert rig.copies == list(range(1000))
    stall = rig.arrived[500][0] - (sent[500] + 0.01)
    assert stall == pytest.approx(0.02 + 3 * 0.001)
    assert len(held(rig, sent)) == pytest.approx(23, abs=1)


def test_N05_of_four_parallel_connections_a_stall_holds_a_quarter_and_order_is_lost_across_them():
    alone, sent_alone = one_loss(fast_retransmit=False, connections=1)
    four, sent_four = one_loss(fast_retransmit=False, connections=4)
    assert len(held(four, sent_four)) / len(held(alone, sent_alone)) == pytest.approx(1 / 4, abs=0.01)
    assert all(copy % 4 == 0 for copy in held(four, sent_four))
    assert alone.copies == sorted(alone.copies)
    assert sorted(four.copies) == list(range(1000)) and four.copies != sorted(four.copies)


def test_N05_parallel_connections_draw_their_delays_independently():
    def delays(parallel: bool) -> list[float]:
        rig = Rig(delay=Exponential(0.01))
        first, second = rig.connection(), rig.connection()
        return [(first.there.delay(), second.there.delay() if parallel else 0.0)[0] for _ in range(100)]

    assert delays(parallel=True) == delays(parallel=False)


def test_A3_what_else_is_missing_is_sent_again_a_round_trip_after_the_oldest_came_through():
    rig = Rig(delay=0.01, fast_retransmit=False)
    stream = rig.connected().there
    start = rig.world.now
    for copy in (0, 1, 2):
        rig.lose_next(stream, lambda copy=copy: rig.send(stream, copy))
        rig.send(stream, copy + 10)
    rig.world.run()
    assert rig.copies == [0, 10, 1, 11, 2, 12]
    assert [round(time - start, 9) for time, _ in rig.arrived] == [0.21, 0.21, 0.23, 0.23, 0.23, 0.23]


def test_A1_the_back_off_starts_anew_when_something_came_through():
    rig = Rig(delay=0.01, fast_retransmit=False)
    stream = rig.connected().there
    start = rig.world.now
    for copy in (0, 1):
        rig.lose_next(stream, lambda copy=copy: rig.send(stream, copy))
    rig.after(0.215, stream.flood, 1.0)  # number 0 came through at 0.21; number 1 is sent again at 0.22
    rig.after(0.225, stream.drain, 1.0)
    rig.world.run()
    assert [round(time - start, 9) for time, _ in rig.arrived] == [0.21, pytest.approx(0.22 + 0.2 + 0.01)]


# -- N-06: the in-doubt window --------------------------------------------------------------------------------------


class Exchange:
    """One request to a server that commits at the end of 5 ms of work, and its reply; delays of 10 ms."""

    def __init__(self, retries: bool) -> None:
        self.retries = retries
        self.applied = 0
        self.is_sent = self.is_acked = False
        self.rig = Rig(delay=0.01)
        self.connection = self.rig.connection(client_opened=self.opened)
        self.connection.keep_open()
        self.rig.run_for(0.02)
        self.rig.world.step()  # the connection opens, and the request is sent

    def opened(self) -> None:
        if self.retries or not self.is_sent:
            self.is_sent = True
            self.connection.there.send(self.work, 1)

    def work(self, copy: int) -> None:
        self.rig.server.work(0.005, self.commit, self.connection.number)

    def commit(self, number: int) -> None:
        if number == self.connection.number and self.connection.is_established:  # else it is rolled back
            self.applied += 1
            self.connection.back.send(self.ack, 1)

    def ack(self, copy: int) -> None:
        self.is_acked = True


def requests_broken_at_all_times(how: str, retries: bool, n: int = 500) -> tuple[float, list[int]]:
    """Break the connection at each of n equidistant times of a request.

    Returns the share that was applied and not acknowledged when it broke, and how often each was applied in the end.
    """
    in_doubt, applications = 0, []
    for i in range(n):
        exchange = Exchange(retries)
        rig = exchange.rig
        rig.run_for(0.025 * (i + 0.5) / n)
        assert exchange.is_sent and not exchange.is_acked
        if how == "reset":
            exchange.connection.reset()
        else:
            rig.server.crash()
            rig.after(0.05, rig.server.restart)
        in_doubt += exchange.applied
        rig.run_for(5.0)
        assert exchange.is_acked == retries
        applications.append(exchange.applied)
    return in_doubt / n, applications


@pytest.mark.parametrize("how", ["reset", "server crash"])
def test_N06_of_requests_that_a_break_leaves_in_doubt_40_percent_were_applied(how):
    share, applications = requests_broken_at_all_times(how, retries=False)
    assert share == pytest.approx(0.40, abs=0.004)  # breaks at equal distances: the share is exact to 1/n
    assert applications.count(0) / len(applications) == pytest.approx(0.60, abs=0.004), "without retry: lost"

    share, applications = requests_broken_at_all_times(how, retries=True)
    assert applications.count(2) / len(applications) == share == pytest.approx(0.40, abs=0.004), "blind retry"
    assert applications.count(0) == 0


# -- N-07 ... N-10: silence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", [1.0, 60.0, 900.0])
def test_N07_after_a_silent_cut_the_stream_resumes_complete_and_late(outage):
    rig = Rig()
    connection = rig.connected()
    sent = rig.send_every(1.0, 10, connection.there)
    for path in (connection.there, connection.back):
        rig.after(2.5, path.cut)
        rig.after(2.5 + outage, path.mend)
    rig.world.run()
    assert rig.copies == list(range(10)) and rig.dropped == []
    assert rig.times_of("client_broken") == rig.times_of("server_broken") == []
    first_missing = rig.arrived[3][0]
    back = sent[0] + 2.5 + outage
    assert (
        back < first_missing <= back + max(outage, 120.0) + 0.3
    )  # the back-off at most doubles, up to RTO_max


def test_N07_after_the_give_up_time_the_sender_sees_an_error_and_the_idle_receiver_nothing():
    rig = Rig()
    connection = rig.connected()
    sent = rig.send_every(1.0, 10, connection.there)
    for path in (connection.there, connection.back):
        rig.after(2.5, path.cut)
    rig.run_for(3000.0)
    assert rig.times_of("client_broken") == [pytest.approx(sent[3] + 924.6)]
    assert rig.copies == [0, 1, 2]
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(copy, BROKEN) for copy in range(3, 10)]
    assert rig.times_of("server_broken") == [], "an idle receiver never notices (A.8)"


def test_N07_data_that_arrives_but_whose_acks_are_cut_off_is_given_up_as_well():
    rig = Rig()
    connection = rig.connected()
    start = rig.world.now
    connection.back.cut()
    rig.after(1.0, rig.send, connection.there, 1)
    rig.run_for(2000.0)
    assert rig.copies == [1]
    assert rig.times_of("client_broken") == [pytest.approx(start + 1.0 + 924.6)]


def test_N07_a_cut_of_the_acks_counts_from_its_beginning_for_data_under_way_and_not_after_its_end():
    rig = Rig()
    connection = rig.connected()
    start = rig.world.now
    rig.send(connection.there, 1)
    rig.after(0.005, connection.back.cut)
    rig.run_for(2000.0)
    assert rig.times_of("client_broken") == [pytest.approx(start + 0.005 + 924.6)]

    rig = Rig()
    connection = rig.connected()
    connection.back.cut()
    rig.send(connection.there, 1)
    rig.after(900.0, connection.back.mend)
    rig.run_for(2000.0)
    assert rig.times_of("client_broken") == []


def test_N07_the_give_up_time_of_linux_is_924_6_seconds():
    assert give_up_after(0.2, 120.0, 15) == pytest.approx(924.6)


def heartbeats() -> tuple[Rig, Connection]:
    rig = Rig(delay=0.001, heartbeat=5.0, heartbeat_misses=3, connect_timeout=1.0)
    return rig, rig.connected()


def test_N08_silence_is_noticed_within_misses_to_misses_plus_one_heartbeats():
    delays = []
    for i in range(50):
        rig, connection = heartbeats()
        rig.run_for(30.0 + 0.1 * i)
        cut = rig.world.now
        connection.back.cut()
        rig.run_for(30.0)
        delays.append(rig.times_of("client_broken")[0] - cut)
    assert all(15.0 <= delay <= 20.0 for delay in delays)
    assert min(delays) < 15.2 and max(delays) > 19.8


@pytest.mark.parametrize("pause, false_alarms", [(14.0, 0), (21.0, 1)])
def test_N08_a_pause_longer_than_the_patience_causes_exactly_one_false_alarm(pause, false_alarms):
    rig, _ = heartbeats()
    rig.run_for(30.0)
    rig.server.pause()
    rig.after(pause, rig.server.resume)
    rig.run_for(200.0)
    assert len(rig.times_of("client_broken")) == false_alarms
    assert len(rig.times_of("server_broken")) == false_alarms
    assert len(rig.times_of("client_opened")) == 1 + false_alarms, "and then it connects again"


def test_N08_heartbeats_missed_before_a_short_interruption_of_the_silence_still_count():
    rig, connection = heartbeats()
    start = rig.world.now
    connection.back.cut()
    rig.after(11.0, connection.back.mend)
    rig.after(12.0, connection.back.cut)  # no heartbeat was due in between
    rig.run_for(40.0)
    assert rig.times_of("client_broken") == [pytest.approx(start + 20.0)]


def test_N08_a_loss_of_everything_silences_heartbeats_like_a_cut():
    rig, connection = heartbeats()
    start = rig.world.now
    connection.back.flood(1.0)
    rig.run_for(40.0)
    assert rig.times_of("client_broken") == [pytest.approx(start + 20.0)]


def test_N08_a_stalled_stream_holds_up_the_heartbeats_behind_it():
    rig, connection = heartbeats()
    start = rig.world.now
    rig.run_for(4.9)
    connection.back.flood(0.999999)  # a loss of nearly everything
    rig.send(connection.back, 1)
    rig.run_for(40.0)
    assert rig.times_of("client_broken") == [pytest.approx(start + 20.0)], "the one due at 5 s waits as well"


@pytest.mark.parametrize("transport", ["datagram", "connection"])
@pytest.mark.parametrize("deduplicates", [False, True])
def test_N09_a_cut_of_the_replies_applies_every_request_as_often_as_it_is_tried(transport, deduplicates):
    rig = Rig()
    if transport == "datagram":
        there, back = rig.link(), rig.link(rig.server, rig.client)
    else:
        connection = rig.connected()
        there, back = connection.there, connection.back
    back.cut()
    applied, replies, timeouts, retries = [], [], [], 2

    def serve(request: int) -> None:
        if not (deduplicates and request in applied):
            applied.append(request)
        back.send(replies.append, request)

    def call(request: int, attempt: int) -> None:
        there.send(serve, request)
        rig.after(0.1, timed_out, request, attempt)

    def timed_out(request: int, attempt: int) -> None:
        timeouts.append(request)
        if attempt <= retries:
            call(request, attempt + 1)

    for request in range(20):
        rig.after(request * 0.01, call, request, 1)
    rig.run_for(10.0)
    assert replies == []
    assert [timeouts.count(request) for request in range(20)] == [retries + 1] * 20
    assert [applied.count(request) for request in range(20)] == [1 if deduplicates else retries + 1] * 20


@pytest.mark.parametrize("linear, patience", [(False, 127.0), (True, 131.0)])
def test_N10_connecting_to_a_dead_host_fails_when_the_kernel_gives_up(linear, patience):
    rig = Rig(syn_linear=linear, connect_timeout=None)
    rig.server.crash("machine")
    rig.connection().keep_open()
    rig.run_for(200.0)
    assert rig.times_of("connect_failed") == [patience]


def test_N10_an_application_timeout_fails_earlier():
    rig = Rig(connect_timeout=5.0, reconnect=0.1)
    rig.server.crash("machine")
    rig.connection().keep_open()
    rig.run_for(10.2)
    assert rig.times_of("connect_failed") == [5.0, pytest.approx(10.1)]


@pytest.mark.parametrize(
    "linear, retries", [(False, [1.0, 3.0, 7.0]), (True, [1.0, 2.0, 3.0, 4.0, 5.0, 7.0])]
)
def test_A6_a_lost_syn_is_repeated_on_the_schedule_of_linux(linear, retries):
    for i, due in enumerate(retries):
        rig = Rig(delay=0.01, syn_linear=linear, connect_timeout=None)
        connection = rig.connection()
        connection.there.cut()
        connection.keep_open()
        rig.run_for(0.5 if i == 0 else retries[i - 1] + 0.5)
        connection.there.mend()
        rig.run_for(10.0)
        assert rig.times_of("client_opened") == [pytest.approx(due + 0.02)]


def test_A6_a_server_that_dies_during_the_handshake_is_not_connected_to():
    rig = Rig(delay=0.01, reconnect=0.1)
    rig.connection().keep_open()
    rig.after(0.015, rig.server.crash)  # the SYN has arrived, its answer has not
    rig.after(0.016, rig.server.restart)
    rig.run_for(1.0)
    assert rig.told[0] == (0.02, "connect_failed")
    assert rig.times_of("client_opened") == [pytest.approx(0.02 + 0.1 + 0.02)]


def test_A11_the_back_off_starts_anew_after_a_connection_and_after_a_restart():
    rig = Rig(delay=0.01, reconnect=0.1, reconnect_max=100.0)
    connection = rig.connection()
    rig.server.crash()
    connection.keep_open()
    rig.after(1.0, rig.server.restart)
    rig.run_for(5.0)
    assert len(rig.times_of("connect_failed")) == 4 and len(rig.times_of("client_opened")) == 1
    rig.server.crash()
    broke = rig.world.now + 0.01
    rig.run_for(1.0)
    assert rig.times_of("connect_failed")[4] == pytest.approx(broke + 0.1 + 0.02)
    rig.run_for(20.0)
    rig.client.crash()
    rig.client.restart()
    back = rig.world.now
    rig.run_for(0.2)
    since = [time for time in rig.times_of("connect_failed") if time > back]
    assert since == [pytest.approx(back + 0.02), pytest.approx(back + 0.14)]


def test_a_client_that_restarts_opens_only_what_was_to_be_kept_open():
    rig = Rig()
    rig.connection()
    rig.client.crash()
    rig.client.restart()
    rig.run_for(10.0)
    assert rig.told == []


# -- N-11, N-12: datagrams ------------------------------------------------------------------------------------------


def test_N11_datagrams_with_exponential_delays_are_inverted_with_the_probability_of_theory():
    n = 20_000
    rig = Rig(delay=Exponential(0.01))
    link = rig.link()
    for i in range(n):
        rig.world.call_at(i * 1.0, rig.send, link, 2 * i)
        rig.world.call_at(i * 1.0 + 0.01, rig.send, link, 2 * i + 1)
    rig.world.run()
    place = {copy: position for position, copy in enumerate(rig.copies)}
    inverted = sum(place[2 * i] > place[2 * i + 1] for i in range(n)) / n
    exact = 0.5 * math.exp(-1)
    assert inverted == pytest.approx(exact, abs=bound(exact, n))


def test_N12_a_doubled_datagram_arrives_at_two_times_in_either_order():
    n, p = 10_000, 0.3
    rig = Rig(delay=Exponential(0.01), duplicate=p)
    rig.send_every(1.0, n + 1, rig.link())
    rig.world.run()
    times = {
        copy: time for time, copy in rig.arrived if copy != 0
    }  # a second copy is the negative of the first
    doubled = [copy for copy in range(1, n + 1) if -copy in times]
    assert set(range(1, n + 1)) <= set(times) and rig.dropped == []
    assert len(doubled) / n == pytest.approx(p, abs=bound(p, n))
    assert all(times[copy] != times[-copy] for copy in doubled)
    inverted = sum(times[-copy] < times[copy] for copy in doubled) / len(doubled)
    assert inverted == pytest.approx(0.5, abs=bound(0.5, len(doubled)))


def test_B_each_datagram_is_lost_on_its_own():
    n, p = 20_000, 0.1
    rig = Rig(loss=p)
    rig.send_every(0.001, n, rig.link())
    rig.world.run()
    lost = [copy for _, copy, cause in rig.dropped if cause == LOST]
    assert len(lost) + len(rig.arrived) == n
    assert len(lost) / n == pytest.approx(p, abs=bound(p, n))
    pairs = sum(a + 1 == b for a, b in pairwise(lost)) / n
    assert pairs == pytest.approx(
        p * p, abs=2 * bound(p * p, n)
    )  # neighbouring pairs overlap: twice the bound


def test_B_bursts_lose_the_share_of_time_that_is_bad_and_lose_it_in_runs():
    rig = Rig(bursts=LossBursts(loss=1.0, every=0.9, lasting=0.1))
    n, spacing = 60_000, 0.01
    rig.send_every(spacing, n, rig.link())
    rig.world.run()
    # Time in the bad state over T: variance 2 u^2 d^2 T / (u + d)^3 for exponential sojourns of means u and d.
    deviation = math.sqrt(2 * 0.9**2 * 0.1**2 / 1.0**3 / (n * spacing))
    assert len(rig.dropped) / n == pytest.approx(0.1, abs=Z * deviation)
    lost = {copy for _, copy, _ in rig.dropped}
    follow = sum(copy + 1 in lost for copy in lost) / len(lost)
    stays_bad = 0.1 + 0.9 * math.exp(-spacing * (1 / 0.9 + 1 / 0.1))  # of a two-state Markov process
    assert follow == pytest.approx(stays_bad, abs=bound(stays_bad, len(lost)))


def test_B_a_datagram_that_meets_a_cut_or_a_dead_host_is_lost_for_that_reason():
    rig = Rig(delay=0.01)
    link = rig.link()
    rig.send(link, 1)  # on its way when the cut begins: it has passed
    link.cut()
    rig.send(link, 2)
    link.mend()
    rig.run_for(0.005)
    rig.send(link, 3)
    rig.after(0.006, rig.server.crash)
    rig.world.run()
    assert rig.copies == [1]
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(2, CUT), (3, DOWN)]


def test_B_a_datagram_that_a_paused_process_has_not_read_dies_with_it():
    rig = Rig(delay=0.01)
    rig.server.pause()
    rig.send(rig.link(), 1)
    rig.run_for(1.0)
    rig.server.crash()
    assert rig.arrived == [] and [(copy, cause) for _, copy, cause in rig.dropped] == [(1, DOWN)]


def test_B_bandwidth_makes_datagrams_queue():
    rig = Rig(delay=0.0, bandwidth=1000.0, size=500)
    link = rig.link()
    for copy in range(3):
        rig.send(link, copy)
    rig.world.run()
    assert rig.arrived == [(0.5, 0), (1.0, 1), (1.5, 2)]


def test_B_a_datagram_takes_its_draws_whatever_becomes_of_it():
    def arrivals(cuts: bool) -> dict[int, float]:
        rig = Rig(delay=Exponential(0.01), loss=0.2)
        link = rig.link()
        rig.send_every(1.0, 100, link)
        if cuts:
            rig.after(19.5, link.cut)
            rig.after(39.5, link.mend)
        rig.world.run()
        return {copy: time for time, copy in rig.arrived}

    whole, cut = arrivals(cuts=False), arrivals(cuts=True)
    assert cut == {copy: time for copy, time in whole.items() if not 20 <= copy < 40}


def test_the_most_exact_entry_of_links_gives_a_direction_its_settings():
    one, two, three = (LinkSettings(delay=Constant(d)) for d in (1.0, 2.0, 3.0))
    rig = Rig(delay=9.0, links={"* -> server": one, "client <-> server": two, "w -> *": three})
    worker = rig.network.host("w.1", group="w")
    delays = [
        rig.network.settings_between(*ends).delay.mean
        for ends in (
            (rig.client, rig.server),
            (rig.server, rig.client),
            (worker, rig.client),
            (rig.client, worker),
        )
    ]
    assert delays == [2.0, 2.0, 3.0, 9.0]


# -- A.6 ... A.9: how connections open, break and come back -----------------------------------------------------------


def test_A6_connecting_takes_a_round_trip_and_is_refused_by_a_machine_without_the_process():
    rig = Rig(delay=0.01)
    rig.connected()
    assert rig.told == [(0.02, "server_opened"), (0.02, "client_opened")]

    rig = Rig(delay=0.01, reconnect=0.1, reconnect_max=0.4)
    rig.server.crash()
    rig.connection().keep_open()
    rig.run_for(2.0)
    gaps = [b - a for a, b in pairwise(rig.times_of("connect_failed"))]
    assert rig.times_of("connect_failed")[0] == 0.02
    assert gaps == pytest.approx(
        [0.12, 0.22, 0.42, 0.42, 0.42]
    )  # back-off doubles up to its maximum, plus a round trip


def test_A6_a_lossy_path_loses_syns_by_draws_of_their_own():
    n, p = 1000, 0.2
    rig = Rig(delay=0.001, loss=p)
    for i in range(n):
        rig.connection(client=rig.network.host(f"c{i}")).keep_open()
    rig.run_for(0.5)
    late = n - len(rig.times_of("client_opened"))
    exact = 1 - (1 - p) ** 2  # the SYN or its answer
    assert late / n == pytest.approx(exact, abs=bound(exact, n))

    def arrivals(connects: int) -> list[float]:
        rig = Rig(delay=Exponential(0.01), loss=p)
        stream = rig.connected().there
        for _ in range(connects - 1):
            stream.connection.reset()
            rig.run_for(100.0)
        start = rig.world.now
        rig.send_every(10.0, 50, stream)
        rig.world.run()
        return [round(time - start, 6) for time, _ in rig.arrived]

    assert arrivals(connects=1) == arrivals(connects=4), (
        "the draws of data do not depend on how often it connected"
    )


def test_A9_a_process_that_dies_resets_its_peer_after_the_delay():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    rig.run_for(1.0)
    start = rig.world.now
    for copy in (1, 2):
        rig.send(connection.there, copy)
        rig.send(connection.back, 10 * copy)
    rig.server.crash()
    assert sorted((copy, cause) for _, copy, cause in rig.dropped) == [(10, BROKEN), (20, BROKEN)]
    rig.run_for(0.005)
    rig.send(connection.there, 3)  # it does not know yet
    rig.run_for(1.0)
    assert rig.times_of("client_broken") == [start + 0.01] and rig.times_of("server_broken") == []
    assert sorted(copy for _, copy, _ in rig.dropped) == [1, 2, 3, 10, 20], "each once"
    assert rig.arrived == []


def test_A9_data_that_a_paused_process_has_not_read_is_lost_by_a_reset():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    rig.server.pause()
    rig.send(connection.there, 1)
    rig.run_for(1.0)
    connection.reset()
    rig.server.resume()
    rig.run_for(1.0)
    assert rig.arrived == [] and [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]


def test_A9_stale_data_of_an_old_connection_never_arrives():
    rig = Rig(delay=0.001, size=5000, bandwidth=1000.0)  # data takes 5 s, a handshake 2 ms
    connection = rig.connected()
    rig.send(connection.back, 1)
    rig.client.crash("machine")
    rig.client.restart()  # at once: the new connection opens while the old data is still under way
    rig.run_for(1.0)
    assert connection.number == 2
    rig.send(connection.back, 2)
    rig.run_for(20.0)
    assert rig.copies == [2]
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]


def test_A8_a_dead_machine_says_nothing_and_answers_with_a_reset_when_it_is_back():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    start = rig.world.now
    rig.send(connection.back, 9)
    rig.server.crash("machine")
    rig.after(100.0, rig.send, connection.there, 1)
    rig.after(120.0, rig.server.restart)
    rig.run_for(100.0)
    assert rig.copies == [9], "what the dead machine had sent arrives"
    assert rig.times_of("client_broken") == []
    rig.run_for(100.0)
    # sent again 0.2 (2^k - 1) s after it was sent; the first time after the restart is k = 7
    answered = start + 100.0 + retransmission_delay(0.2, 120.0, 7) + 0.02
    assert rig.times_of("client_broken") == [pytest.approx(answered)]
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]
    assert rig.times_of("client_opened")[-1] == pytest.approx(answered + 0.1 + 0.02)


def test_A8_a_half_open_connection_that_only_listens_never_notices():
    rig = Rig()
    rig.connected()
    rig.server.crash("machine")
    rig.after(10.0, rig.server.restart)
    rig.run_for(1e6)
    assert rig.times_of("client_broken") == []


@pytest.mark.parametrize("heartbeat, noticed_after", [(None, 1.0 + 924.6), (10.0, 30.0)])
def test_A8_a_dead_machine_is_noticed_by_giving_up_or_by_the_heartbeat(heartbeat, noticed_after):
    rig = Rig(heartbeat=heartbeat, heartbeat_misses=2)
    connection = rig.connected()
    start = rig.world.now
    rig.server.crash("machine")
    rig.after(1.0, rig.send, connection.there, 1)
    rig.run_for(2000.0)
    assert rig.times_of("client_broken") == [pytest.approx(start + noticed_after)]
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]


def test_A8_a_client_that_comes_back_takes_over_its_old_connection():
    rig = Rig(delay=0.01)
    rig.connected()
    rig.client.crash("machine")
    rig.run_for(10.0)
    assert rig.times_of("server_broken") == []
    rig.client.restart()
    rig.run_for(1.0)
    assert [what for _, what in rig.told[2:]] == ["server_broken", "server_opened", "client_opened"]


def test_A9_a_reset_that_meets_a_cut_leaves_the_peer_half_open_until_it_sends():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    connection.back.cut()
    rig.server.crash()
    rig.after(1.0, connection.back.mend)
    rig.after(2.0, rig.send, connection.there, 1)
    rig.run_for(1.9)
    assert rig.times_of("client_broken") == []
    rig.run_for(1.0)
    assert len(rig.times_of("client_broken")) == 1
    assert [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]


def test_A9_a_reset_that_cannot_come_back_comes_with_a_retransmission():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    start = rig.world.now
    connection.back.cut()
    rig.server.crash()
    rig.after(1.0, rig.send, connection.there, 1)
    rig.after(5.0, connection.back.mend)
    rig.run_for(20.0)
    answered = start + 1.0 + retransmission_delay(0.2, 120.0, 5) + 0.02  # the first after 5 s
    assert rig.times_of("client_broken") == [pytest.approx(answered)]
    assert [copy for _, copy, _ in rig.dropped] == [1]


def test_A9_a_reset_of_an_old_connection_does_not_break_the_new_one():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    connection.there.slow_down(1000.0)
    connection.broken(rig.client)  # its reset takes 10 s
    connection.there.speed_up(1000.0)
    rig.run_for(30.0)
    assert len(rig.times_of("client_broken")) == len(rig.times_of("server_broken")) == 1, "of the old one"
    assert len(rig.times_of("client_opened")) == 2 and connection.is_established


def test_A9_a_dead_machine_retransmits_nothing():
    rig = Rig(delay=0.01, fast_retransmit=False)
    connection = rig.connected()
    rig.lose_next(connection.there, lambda: rig.send(connection.there, 1))
    rig.send(connection.there, 2)
    rig.client.crash("machine")
    rig.run_for(1000.0)
    assert rig.arrived == [] and [copy for _, copy, _ in rig.dropped] == [1, 2]


def test_A9_what_a_dead_machine_sent_to_a_dead_process_is_dropped_once():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    rig.send(connection.there, 1)
    rig.client.crash("machine")
    rig.server.crash("process")
    rig.run_for(1.0)
    assert rig.arrived == [] and [(copy, cause) for _, copy, cause in rig.dropped] == [(1, BROKEN)]


def test_A9_what_waits_behind_a_lost_segment_is_dropped_once_when_the_connection_breaks():
    rig = Rig(fast_retransmit=False)
    connection = rig.connected()
    rig.lose_next(connection.there, lambda: rig.send(connection.there, 0))
    for copy in range(1, 5):
        rig.send(connection.there, copy)
    rig.run_for(0.1)
    connection.broken(rig.client)
    rig.run_for(5.0)
    assert [copy for _, copy, _ in rig.dropped] == [0, 1, 2, 3, 4] and rig.arrived == []


def test_A9_a_peer_is_told_of_the_drop_before_it_is_told_of_the_break():
    rig = Rig()
    seen: list[int] = []
    connection = rig.connected(client_broken=lambda: seen.append(len(rig.dropped)))
    rig.server.crash("process")
    rig.send(connection.there, 1)
    rig.run_for(1.0)
    assert seen == [1]


def test_C_a_paused_process_reads_late_and_in_order_what_its_kernel_took():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    start = rig.world.now
    rig.send_every(1.0, 5, connection.there)
    rig.after(0.5, rig.server.pause)
    rig.after(3.5, rig.server.resume)
    rig.run_for(10.0)
    assert rig.copies == [0, 1, 2, 3, 4]
    assert [round(time - start, 9) for time, _ in rig.arrived] == [0.01, 3.5, 3.5, 3.5, 4.01]
    assert rig.times_of("client_broken") == []


def test_C_a_paused_client_learns_of_a_break_when_it_goes_on():
    rig = Rig()
    rig.connected()
    start = rig.world.now
    rig.client.pause()
    rig.server.crash()
    rig.server.restart()
    rig.after(10.0, rig.client.resume)
    rig.run_for(20.0)
    assert rig.times_of("client_broken") == [start + 10.0]
    assert rig.times_of("client_opened")[-1] > start + 10.0


def test_B_a_burst_of_loss_stalls_a_connection_until_a_retransmission_after_it():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    stream.flood(1.0)
    rig.after(1.0, stream.drain, 1.0)
    rig.send(stream, 1)
    rig.world.run()
    assert rig.arrived == [(pytest.approx(start + 1.4 + 0.01), 1)]  # 0.2, 0.6 and 1.4 s: the first after 1 s


def test_B_a_connection_over_a_link_with_bursts_loses_nothing():
    rig = Rig(bursts=LossBursts(loss=1.0, every=1.0, lasting=0.5))
    sent = rig.send_every(0.1, 1000, rig.connected().there)
    rig.world.run()
    assert rig.copies == list(range(1000))
    assert max(time - sent[copy] for time, copy in rig.arrived) > 0.5


def test_a_slow_spell_multiplies_delays_and_ends_without_a_trace():
    rig = Rig(delay=0.01)
    link, stream = rig.link(), rig.connected().there
    plain = (link.send.__name__, stream.send.__name__)
    for path in (link, stream):
        path.slow_down(3.0)
        path.slow_down(7.0)
        rig.send(path, 1)
    start = rig.world.now
    rig.world.run()
    assert [time - start for time, _ in rig.arrived] == pytest.approx([0.21, 0.21])
    for path in (link, stream):
        path.speed_up(3.0)
        path.speed_up(7.0)
    assert (link.send.__name__, stream.send.__name__) == plain and link.slowness == stream.slowness == 1.0


def test_the_worst_of_several_losses_counts():
    rig = Rig(loss=0.3)
    link = rig.link()
    seen = [link.loss]
    for change, loss in ((link.flood, 0.5), (link.flood, 0.2), (link.drain, 0.5), (link.drain, 0.2)):
        change(loss)
        seen.append(link.loss)
    assert seen == [0.3, 0.5, 0.5, 0.3, 0.3]


def test_the_rto_is_measured_as_rfc_6298_says():
    assert Rig(delay=0.001).connection().there.rto == 0.2, "RTO_min"
    assert Rig(delay=0.3).connection().there.rto == pytest.approx(0.6), "SRTT without variation"
    varying = Rig(delay=Exponential(0.1)).connection().there.rto
    # SRTT + 4 RTTVAR of the sum of two exponentials of mean 0.1: mean absolute deviation 0.8 e^-2 = 0.1083
    assert varying == pytest.approx(0.2 + 4 * 0.1083, rel=0.1)


def test_nodes_of_a_cluster_are_named_by_their_own_name_and_by_their_group():
    one, two, three, four = (LinkSettings(delay=Constant(d)) for d in (1.0, 2.0, 3.0, 4.0))
    links = {"orders <-> orders": one, "orders.1 -> orders": two, "client <-> orders": three, "* -> *": four}
    rig = Rig(delay=9.0, links=links)
    first, second, third = (rig.network.host(f"orders.{i}", group="orders") for i in (1, 2, 3))

    def delay(*ends: Host) -> float:
        return rig.network.settings_between(*ends).delay.mean

    assert [delay(second, third), delay(third, second), delay(second, first)] == [1.0, 1.0, 1.0]
    assert [delay(first, second), delay(first, third)] == [2.0, 2.0]
    assert [delay(rig.client, first), delay(second, rig.client)] == [3.0, 3.0]
    assert delay(rig.server, first) == 4.0
    assert rig.network.named("orders") == [first, second, third] and rig.network.named("orders.2") == [second]
