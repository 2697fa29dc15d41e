"""What a process does with its end of a connection: busy senders, readers that stop reading, rules of its own."""

from __future__ import annotations

from functools import partial

import pytest

from sim.distributions import Exponential
from sim.heartbeats import SampledHeartbeats
from sim.network import TcpSettings
from tests.conformance.rig import BROKEN, Rig


def arrivals(rig: Rig, start: float) -> dict[int, float]:
    return {copy: round(time - start, 9) for time, copy in rig.arrived}


# -- a sender that is busy until a segment leaves: send_at -----------------------------------------------------------


def test_a_segment_that_leaves_later_takes_no_event_of_its_own():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start, scheduled = rig.world.now, len(rig.world.agenda)
    stream.send_at(start + 0.5, rig.arrive, 1)
    assert len(rig.world.agenda) == scheduled + 1 and stream.backlog == 1
    rig.world.run()
    assert arrivals(rig, start) == {1: 0.51} and stream.sent == 1 and stream.backlog == 0


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_segment_sent_at_a_time_is_like_one_sent_then(loss):
    def run(is_at: bool) -> list[tuple[float, int]]:
        rig = Rig(seed=4, delay=Exponential(0.01), loss=loss)
        stream = rig.connected().there
        start = rig.world.now
        for copy in range(200):
            if is_at:
                stream.send_at(start + 5.0 * copy, rig.arrive, copy)
            else:
                rig.world.call_at(start + 5.0 * copy, rig.send, stream, copy)
        rig.world.run()
        return rig.arrived

    at, then = run(True), run(False)
    assert [copy for _, copy in at] == [copy for _, copy in then] == list(range(200))
    if not loss:  # with losses the same laws hold, but which draws a segment takes depends on when it draws
        assert at == then


def test_what_is_sent_behind_a_busy_process_arrives_behind():
    for settings in ({}, {"loss": 1e-9}, {"bandwidth": 1e9}):
        rig = Rig(delay=0.01, **settings)
        stream = rig.connected().there
        start = rig.world.now
        stream.send_at(start + 1.0, rig.arrive, 1)
        rig.send(stream, 2)
        stream.send_at(start + 0.5, rig.arrive, 3)
        rig.world.run()
        assert rig.copies == [1, 2, 3]
        assert min(arrivals(rig, start).values()) == pytest.approx(1.01, abs=1e-5)


def test_a_segment_that_is_lost_as_it_leaves_is_retransmitted_from_then_on():
    rig = Rig(delay=0.01, loss=0.5, fast_retransmit=False)
    stream = rig.connected().there
    stream._chance = iter([0.1, 0.9, 0.9, 0.9]).__next__
    start = rig.world.now
    stream.send_at(start + 1.0, rig.arrive, 1)
    stream.send_at(start + 1.1, rig.arrive, 2)
    rig.send(stream, 3)
    rig.world.run()
    assert rig.copies == [1, 2, 3]
    assert arrivals(rig, start)[1] == pytest.approx(1.0 + stream.rto + 0.01)
    assert stream.sent == 3


def test_a_departure_in_the_past_is_a_mistake():
    rig = Rig()
    stream = rig.connected().there
    with pytest.raises(ValueError, match="cannot leave at"):
        stream.send_at(rig.world.now - 1.0, rig.arrive, 1)


@pytest.mark.parametrize("back", [1.5, 30.0])
@pytest.mark.parametrize("kind", ["process", "machine"])
def test_a_crash_takes_what_has_not_left(kind, back):
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    for copy in range(4):
        stream.send_at(start + 1.0 * copy, rig.arrive, copy)
    rig.after(1.005, rig.client.crash, kind)
    rig.after(back, rig.client.restart)
    rig.run_for(10.0)
    # a process that dies resets its connection, and what is on its way dies with it; a machine says nothing
    arrived = [0] if kind == "process" else [0, 1]
    assert rig.copies == arrived
    assert sorted(copy for _, copy, _ in rig.dropped) == [c for c in range(4) if c not in arrived], (
        "each once"
    )


def test_a_connection_that_breaks_takes_what_has_not_left():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    start = rig.world.now
    for copy in range(4):
        connection.there.send_at(start + copy, rig.arrive, copy)
    rig.after(1.5, connection.broken, rig.server)
    rig.run_for(10.0)
    assert rig.copies == [0, 1] and [c for _, c, _ in rig.dropped] == [2, 3]
    connection.there.send_at(rig.world.now + 1.0, rig.arrive, 9)
    rig.run_for(10.0)
    assert rig.copies == [0, 1, 9], "the next connection is as good as new"
    connection.broken(rig.client)
    connection.there.send_at(rig.world.now + 1.0, rig.arrive, 10)
    assert rig.dropped[-1][1:] == (10, BROKEN), "nobody is connected"


def test_a_cut_meets_what_has_not_left_and_no_more():
    rig = Rig(delay=0.5, fast_retransmit=False)
    stream = rig.connected().there
    start = rig.world.now
    for copy in range(3):
        stream.send_at(start + 1.0 * copy, rig.arrive, copy)
    rig.send(stream, 3)
    rig.after(0.9, stream.cut)
    rig.after(1.1, stream.mend)
    rig.world.run()
    assert rig.copies == [0, 1, 2, 3], "in order"
    assert arrivals(rig, start)[0] == 0.5, "it had passed"
    assert arrivals(rig, start)[1] == pytest.approx(1.0 + stream.rto + 0.5), "left into the cut"
    assert stream.severed == 1 and stream.sent == 4


def test_a_slow_spell_meets_what_has_not_left():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    stream.send_at(start + 1.0, rig.arrive, 1)
    stream.send_at(start + 3.0, rig.arrive, 2)
    rig.after(0.5, stream.slow_down, 50.0)
    rig.after(1.7, stream.speed_up, 50.0)
    rig.world.run()
    assert arrivals(rig, start) == {1: 1.5, 2: 3.01}
    assert stream.send.__name__ == "_send_plain" and stream.send_at.__name__ == "_send_plain_at"


def test_a_pause_keeps_back_what_has_not_left():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    for copy in range(3):
        stream.send_at(start + 1.0 * copy, rig.arrive, copy)
    rig.after(0.5, rig.client.pause)
    rig.after(1.5, rig.client.resume)
    rig.world.run()
    assert arrivals(rig, start) == {0: 0.01, 1: 1.51, 2: 2.01}


def test_a_copy_that_has_not_left_is_in_transit():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    stream.send_at(rig.world.now + 1.0, rig.arrive, 1)
    stream.cut()
    assert stream.held_copies() == [1] and stream.backlog == 1
    stream.mend()
    rig.world.run()
    assert rig.copies == [1] and stream.held_copies() == [] and stream.backlog == 0


# -- a receiver that stops reading: pause_reading --------------------------------------------------------------------


def test_a_process_that_does_not_read_finds_everything_in_order_when_it_does():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    rig.send_every(1.0, 5, stream)
    rig.after(0.5, stream.pause_reading)
    rig.after(3.5, stream.resume_reading)
    rig.run_for(3.2)
    assert stream.backlog == 3 and stream.held_copies() == [1, 2, 3]
    rig.run_for(10.0)
    assert list(arrivals(rig, start).items()) == [(0, 0.01), (1, 3.5), (2, 3.5), (3, 3.5), (4, 4.01)]
    assert stream.backlog == 0 and rig.dropped == []


def test_a_reader_may_stop_again_at_any_segment():
    rig = Rig(delay=0.01)
    stream = rig.connected().there

    def read(copy: int) -> None:
        rig.arrive(copy)
        stream.pause_reading()

    for copy in range(3):
        stream.send(read, copy)
    rig.run_for(1.0)
    assert rig.copies == [0]
    stream.resume_reading()
    assert rig.copies == [0, 1]
    stream.resume_reading()
    assert rig.copies == [0, 1, 2]
    rig.send(stream, 3)
    rig.run_for(1.0)
    assert rig.copies == [0, 1, 2]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("ends", ["crash", "machine_crash", "close"])
def test_what_nobody_has_read_is_lost_with_either_end(side, ends):
    rig = Rig(delay=0.01, heartbeat=1.0)
    connection = rig.connected()
    stream = connection.there
    stream.pause_reading()
    for copy in (1, 2):
        rig.send(stream, copy)
    rig.run_for(0.5)
    host = getattr(rig, side)
    if ends == "close":
        connection.broken(host)
    else:
        host.crash("process" if ends == "crash" else "machine")
        rig.after(10.0, host.restart)
    stream.resume_reading()  # too late if the end is gone
    if side == "client" and ends == "machine_crash":
        assert rig.copies == [1, 2], "the server has them and knows of nothing"
    else:
        rig.run_for(20.0)
        assert rig.copies == [] and [copy for _, copy, _ in rig.dropped] == [1, 2]
    rig.run_for(20.0)
    arrived = rig.copies
    rig.send(stream, 3)
    rig.run_for(1.0)
    assert rig.copies == [*arrived, 3], "a new connection is read"


def test_what_a_dead_machine_had_sent_and_nobody_read_is_dropped_once():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    connection.there.pause_reading()
    rig.send(connection.there, 1)
    rig.run_for(0.5)
    rig.client.crash("machine")
    rig.server.crash()
    assert [copy for _, copy, _ in rig.dropped] == [1]
    rig.client.restart()
    rig.server.restart()
    rig.run_for(20.0)
    assert [copy for _, copy, _ in rig.dropped] == [1] and rig.copies == []


def test_a_pause_of_the_process_and_of_its_reading_go_together():
    rig = Rig(delay=0.01)
    stream = rig.connected().there
    start = rig.world.now
    rig.send_every(1.0, 6, stream)
    rig.after(0.5, stream.pause_reading)
    rig.after(1.5, rig.server.pause)
    rig.after(3.5, rig.server.resume)
    rig.after(4.5, stream.resume_reading)
    rig.world.run()
    assert list(arrivals(rig, start).items()) == [
        (0, 0.01), (1, 4.5), (2, 4.5), (3, 4.5), (4, 4.5), (5, 5.01),
    ]  # fmt: skip


def test_not_reading_is_not_silence():
    rig = Rig(delay=0.01, heartbeat=1.0)
    connection = rig.connected()
    connection.there.pause_reading()
    rig.send(connection.there, 1)
    rig.run_for(1000.0)
    assert connection.is_established and connection.number == 1


# -- TCP settings of one connection ----------------------------------------------------------------------------------


def test_a_connection_may_have_tcp_settings_of_its_own():
    rig = Rig(delay=0.01, heartbeat=1.0)
    own = TcpSettings(rto_min=0.7, reconnect=3.0, heartbeat=None)
    connection = rig.connected(tcp=own)
    start = rig.world.now
    rig.lose_next(connection.there, lambda: rig.send(connection.there, 1))
    rig.run_for(2.0)
    assert arrivals(rig, start) == {1: 0.71}
    assert rig.connection().there.rto == 0.2, "the others have those of the network"
    connection.back.cut()
    rig.run_for(10.0)
    assert connection.number == 1 and connection.is_established, "no heartbeat"
    connection.back.mend()
    connection.reset()
    rig.run_for(3.01)
    assert connection.number == 1
    rig.run_for(0.02)
    assert connection.number == 2


# -- heartbeats that are looked for at intervals ----------------------------------------------------------------------

H = 60.0


def sampled(
    cut_after: float, phase: float = 0.0, last_data: float | None = None, delay: float = 0.0
) -> float:
    """Seconds from a cut until the client notices, `cut_after` seconds after the opening.

    The peer's beats lag behind the looks by that phase (0 to 1, of H / 2); it sends data once, at `last_data`.
    """
    rig = Rig(delay=delay)
    connection = rig.connected(heartbeats=SampledHeartbeats(H))
    connection._phase = phase
    start = rig.world.now
    if last_data is not None:
        rig.after(last_data, rig.send, connection.back, 1)
    rig.after(cut_after, connection.back.cut)
    rig.run_for(cut_after + 4 * H)
    assert len(rig.times_of("client_broken")) == 1
    return rig.times_of("client_broken")[0] - start - cut_after


@pytest.mark.parametrize(
    "cut_after, phase, closes_at",
    [
        (1.0, 0.5, 180.0),  # nothing came but the opening: looks at 60 (a change), 120, 180 s
        (
            70.0,
            0.5,
            180.0,
        ),  # beats at 15, 45 s; the next, at 75 s, is cut: heard at 45, looks at 60, 120, 180
        (44.0, 0.5, 180.0),
        (76.0, 0.5, 240.0),  # heard at 75: the look at 120 sees it
        (104.9, 0.5, 240.0),
        (105.1, 0.5, 240.0),
        (89.6, 0.99, 180.0),  # heard at 59.7, just before the look at 60
        (89.8, 0.99, 240.0),
        (121.0, 0.0, 300.0),  # heard right with the look at 120: only the next one sees it
    ],
)
def test_R16_worked_cases_of_an_idle_connection(cut_after, phase, closes_at):
    assert sampled(cut_after, phase) == pytest.approx(closes_at - cut_after)


def test_R16_data_tells_as_well_that_the_peer_is_there():
    assert sampled(cut_after=62.0, phase=0.5) == pytest.approx(180.0 - 62.0)
    assert sampled(cut_after=62.0, phase=0.5, last_data=61.0) == pytest.approx(240.0 - 62.0)
    assert sampled(cut_after=59.0, phase=0.5, last_data=58.0, delay=5.0) == pytest.approx(240.0 - 59.0), (
        "what is on its way when the cut begins has passed it"
    )


def test_R16_silence_is_noticed_at_the_means_of_theory():
    n = 400
    cuts = [10 * H + (i + 0.5) / n * H for i in range(n)]
    phases = [(i * 0.6180339887) % 1.0 for i in range(n)]  # equidistributed, and not in step with the cuts
    idle = [sampled(cut, phase) / H for cut, phase in zip(cuts, phases, strict=True)]
    busy = [sampled(cut, phase, last_data=cut - 1e-6) / H for cut, phase in zip(cuts, phases, strict=True)]
    assert 1.5 <= min(idle) < 1.55 and 2.95 < max(idle) <= 3.0
    assert 2.0 <= min(busy) < 2.01 and 2.99 < max(busy) <= 3.0
    assert sum(idle) / n == pytest.approx(2.25, abs=0.01)
    assert sum(busy) / n == pytest.approx(2.5, abs=0.001)


def test_R16_each_connection_draws_how_its_beats_lag():
    rig = Rig(delay=0.0)
    rule = SampledHeartbeats(H)
    connections = [rig.connected(heartbeats=rule) for _ in range(400)]
    rig.run_for(1.25 * H)
    for connection in connections:
        connection.back.cut()
    rig.run_for(4 * H)
    # Beats come at phase and H / 2 + phase, the phase uniform up to H / 2. The last one before the cut came after the
    # look at H for half of the connections, and before it for the others.
    closed = [round(time / H) for time in rig.times_of("client_broken")]
    assert set(closed) == {3, 4} and closed.count(3) == pytest.approx(200, abs=3.2905 * 10)
    connections[0].back.mend()
    before = connections[0]._phase
    rig.run_for(H)
    assert connections[0].number == 2 and connections[0]._phase != before


def test_R16_silence_that_ends_before_the_second_look_in_vain_is_not_noticed():
    rig = Rig(delay=0.01)
    connection = rig.connected(heartbeats=SampledHeartbeats(H))
    start = rig.world.now
    connection.back.cut()
    rig.after(170.0, connection.back.mend)
    rig.run_for(1000.0)
    assert rig.times_of("client_broken") == []
    connection.back.cut()
    rig.run_for(2.5 * H)
    assert len(rig.times_of("client_broken")) == 1 and rig.times_of("client_broken")[0] > start + 1000.0


# -- closing on purpose ----------------------------------------------------------------------------------------------


def test_a_server_that_closes_is_heard_of_after_a_delay_and_come_back_to():
    rig = Rig(delay=0.01, reconnect=1.0)
    connection = rig.connected()
    start = rig.world.now
    rig.send(connection.back, 1)
    connection.broken(rig.server)
    assert rig.times_of("server_broken") == [start], "at once"
    rig.run_for(5.0)
    assert rig.times_of("client_broken") == [start + 0.01]
    assert rig.times_of("client_opened")[1:] == [pytest.approx(start + 0.01 + 1.0 + 0.02)]
    assert rig.arrived == [] and [copy for _, copy, _ in rig.dropped] == [1], (
        "a reset takes what is on its way"
    )
    connection.broken(rig.server)
    connection.broken(rig.server)
    rig.run_for(5.0)
    assert len(rig.times_of("server_broken")) == 2, "closed once"


def test_a_client_that_forgets_a_connection_closes_it_and_does_not_come_back():
    rig = Rig(delay=0.01)
    connection = rig.connected()
    start = rig.world.now
    rig.send(connection.there, 1)
    connection.forget()
    assert rig.times_of("client_broken") == [start]
    rig.client.crash()
    rig.client.restart()
    rig.run_for(100.0)
    assert rig.times_of("server_broken") == [start + 0.01] and rig.copies == []
    assert connection.number == 1 and not connection.is_established
    connection.keep_open()
    rig.run_for(1.0)
    assert connection.number == 2 and connection.is_established
    connection.reset()
    rig.run_for(1.0)
    assert connection.number == 3, "and it is kept open again"


def test_a_client_may_forget_a_connection_while_it_connects_or_waits_to():
    rig = Rig(delay=0.01, reconnect=1.0)
    connection = rig.connection()
    connection.keep_open()
    rig.run_for(0.015)  # the answer is on its way
    connection.forget()
    rig.run_for(10.0)
    assert rig.told == []
    rig.server.crash()
    connection.keep_open()
    rig.run_for(0.5)
    assert [what for _, what in rig.told] == ["connect_failed"], "it waits to try again"
    connection.forget()
    rig.server.restart()
    rig.run_for(10.0)
    assert connection.number == 0


def test_a_client_fails_over_between_addresses_from_its_callbacks():
    rig = Rig(delay=0.01, reconnect=1.0)
    addresses: list = []

    def fail_over(i: int) -> None:
        addresses[i].forget()
        addresses[1 - i].keep_open()

    for i, server in enumerate((rig.server, rig.network.host("other"))):
        on = {name: partial(fail_over, i) for name in ("client_broken", "connect_failed")}
        addresses.append(rig.network.connection(rig.client, server, rig.hop("there"), rig.hop("back"), **on))
    addresses[0].keep_open()
    rig.run_for(1.0)
    rig.server.crash()
    rig.run_for(0.5)
    assert [connection.is_established for connection in addresses] == [False, True]
    rig.server.restart()
    rig.run_for(10.0)
    assert [connection.is_established for connection in addresses] == [False, True]
    rig.client.crash()
    rig.client.restart()
    rig.run_for(1.0)
    assert [connection.number for connection in addresses] == [1, 2]
    rig.network.hosts["other"].crash()
    rig.run_for(1.0)
    assert [connection.number for connection in addresses] == [2, 2] and addresses[0].is_established


def test_a_connection_that_is_wanted_again_at_once_connects_once():
    rig = Rig(delay=0.01, reconnect=0.015)
    connection = rig.connected()
    start = rig.world.now
    connection.forget()
    connection.keep_open()
    rig.run_for(0.005)
    connection.keep_open()  # again, while it connects: as ever, a new attempt
    rig.run_for(1.0)
    assert rig.times_of("client_opened")[1:] == [pytest.approx(start + 0.005 + 0.02)]
