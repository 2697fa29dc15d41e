"""Faults: N-14 to N-17 of the sheet, when they strike and heal, and whether they acted on anything."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sim.apps import Idempotence, Producer, Resend, Service
from sim.arrivals import Deterministic, Poisson
from sim.brokers.textbook import Channel, ConsumerClient, ProducerClient
from sim.config import ChannelConfig, Config, ProducerConfig, ServiceConfig
from sim.distributions import Constant, Exponential
from sim.faults import LINK_KINDS, Fault, parse_event, parts_of
from sim.host import Host
from sim.kernel import Timeouts, World
from sim.network import NetworkSettings, TcpSettings
from sim.simulation import Run, simulate
from sim.storage import Disk, Journal
from tests.conformance.rig import Rig

Z = 3.2905  # two-sided 99.9 % of the normal distribution: the confidence of every stochastic bound below
KINDS = (
    "stop",
    "crash",
    "machine_crash",
    "disk_loss",
    "fsync_failure",
    "pause",
    "slow",
    "clock_skew",
    *LINK_KINDS,
)

# -- stops: a process that may put things in order before it ends -----------------------------------------------------


class Orderly:
    """A program that needs `seconds` to end in good order; it notes what becomes of it, and when."""

    def __init__(self, host: Host, seconds: float) -> None:
        self.host, self.seconds, self.story = host, seconds, []
        host.residents.append(self)

    def stopping(self, done):
        self.note("stopping")
        self.host.call_later(self.seconds, done)

    def crashed(self, kind):
        self.note(kind)

    def restarted(self):
        self.note("restarted")

    def note(self, what):
        self.story.append((what, self.host.world.now))


@pytest.mark.parametrize("seconds, ends", [(0.0, 1.0), (3.0, 4.0), (100.0, 31.0)])
def test_a_process_that_is_stopped_ends_when_it_is_done_or_is_killed(seconds, ends):
    rig = Rig(delay=0.0)
    program = Orderly(rig.server, seconds)
    rig.faults(Fault("stop", "server", at=1.0, lasting=50.0))
    rig.run_for(100.0)
    assert program.story == [("stopping", 1.0), ("process", ends), ("restarted", 51.0)]


def test_a_stop_that_heals_before_the_process_has_ended_ends_it_then():
    rig = Rig(delay=0.0)
    program = Orderly(rig.server, 3.0)
    rig.faults(Fault("stop", "server", at=1.0, lasting=1.0))
    rig.run_for(100.0)
    assert program.story == [("stopping", 1.0), ("process", 2.0), ("restarted", 2.0)]


def test_a_crash_ends_a_stop_and_the_process_is_back_when_both_are_over():
    rig = Rig(delay=0.0)
    program = Orderly(rig.server, 3.0)
    rig.faults(
        Fault("stop", "server", at=1.0, lasting=10.0), Fault("machine_crash", "server", at=2.0, lasting=20.0)
    )
    rig.run_for(100.0)
    assert program.story == [("stopping", 1.0), ("machine", 2.0), ("restarted", 22.0)]


# -- N-14: pauses -----------------------------------------------------------------------------------------------------

LEASE, RENEWAL = 10.0, 3.0


def lease_lost(paused_at: float, pause: float) -> bool:
    """Whether a client that renews a lease loses it when it is paused at that time (both in s)."""
    rig = Rig(delay=0.0)
    lost: list[str] = []
    leases: Timeouts[str] = Timeouts(rig.server, LEASE, lost.append)
    link = rig.link()

    def renew() -> None:
        link.send(lambda copy: lost or leases.add("lease"), 0)
        rig.client.call_later(RENEWAL, renew)

    renew()
    rig.after(paused_at, rig.client.pause)
    rig.after(paused_at + pause, rig.client.resume)
    rig.run_for(100.0)
    return bool(lost)


def test_N14_a_pause_costs_the_lease_if_and_only_if_it_is_longer_than_what_remains_of_it():
    for paused_at in (30.1, 30.9, 31.7, 32.9):
        remaining = LEASE - paused_at % RENEWAL
        for pause in (remaining - 0.05, remaining + 0.05):
            assert lease_lost(paused_at, pause) == (pause > remaining), (paused_at, pause)


def test_N14_timers_that_come_due_in_a_pause_fire_late_and_are_not_skipped():
    rig = Rig()
    fired: list[tuple[float, int]] = []
    for i in range(1, 8):
        rig.client.call_later(float(i), lambda i=i: fired.append((rig.world.now, i)))
    rig.after(2.5, rig.client.pause)
    rig.after(5.5, rig.client.resume)
    rig.world.run()
    assert fired == [(1.0, 1), (2.0, 2), (5.5, 3), (5.5, 4), (5.5, 5), (6.0, 6), (7.0, 7)]


def test_N14_work_stops_in_a_pause_and_goes_on_after_it():
    rig = Rig()
    done: list[float] = []
    rig.client.work(4.0, lambda: done.append(rig.world.now))
    rig.after(1.0, rig.client.pause)
    rig.after(3.0, rig.client.resume)  # before the work would have been done
    rig.after(5.0, rig.client.pause)
    rig.after(8.0, rig.client.resume)  # after that
    rig.world.run()
    assert done == [4.0 + 2.0 + 3.0]


def test_a_crash_in_a_pause_drops_what_was_held_and_the_pause_outlasts_the_restart():
    rig = Rig()
    done: list[str] = []
    rig.client.call_later(1.0, done.append, "old")
    rig.client.pause()
    rig.run_for(2.0)
    rig.client.crash()
    rig.client.restart()
    rig.client.call_later(1.0, done.append, "new")
    rig.run_for(2.0)
    assert done == [] and not rig.client.is_running
    rig.client.resume()
    assert done == ["new"]


def test_a_call_that_crashes_its_host_when_a_pause_ends_is_the_last_one():
    rig = Rig()
    done: list[str] = []
    rig.client.call_later(1.0, rig.client.crash)
    rig.client.call_later(2.0, done.append, "held")
    rig.client.pause()
    rig.run_for(3.0)
    rig.client.resume()
    assert done == [] and not rig.client.is_up


def test_a_process_that_restarts_in_a_pause_begins_after_it():
    rig = Rig()
    done: list[str] = []
    rig.client.residents.append(
        SimpleNamespace(crashed=done.append, restarted=lambda: done.append("restarted"))
    )
    rig.client.pause()
    rig.client.crash()
    rig.client.restart()
    assert done == ["process"]
    rig.client.resume()
    assert done == ["process", "restarted"]


# -- N-15: chance -----------------------------------------------------------------------------------------------------


def test_N15_availability_and_the_number_of_crashes_are_those_of_an_alternating_renewal_process():
    up, down, horizon = 100.0, 10.0, 1e6
    rig = Rig()
    faults = rig.faults(Fault("crash", "server", mtbf=up, mttr=down))
    rig.world.run(until=horizon)
    faults.heal()
    unavailable = math.fsum(spell.end - spell.start for spell in faults.spells)
    # Renewal theory (Ross, Stochastic Processes, 3.4): variances per unit of time of down time and of the count
    time_variance = 2 * up**2 * down**2 / (up + down) ** 3
    count_variance = (up**2 + down**2) / (up + down) ** 3
    availability = 1 - unavailable / horizon
    assert availability == pytest.approx(up / (up + down), abs=Z * math.sqrt(time_variance / horizon))
    expected = horizon / (up + down)
    assert len(faults.spells) == pytest.approx(expected, abs=Z * math.sqrt(count_variance * horizon))


def test_N15_faults_by_chance_draw_independently_of_each_other():
    def starts(*faults: Fault) -> list[float]:
        rig = Rig()
        run = rig.faults(*faults)
        rig.world.run(until=1000.0)
        return [spell.start for spell in run.spells if spell.target == "server"]

    fault = Fault("crash", "server", mtbf=50.0, mttr=5.0)
    assert starts(fault) == starts(Fault("crash", "client", mtbf=20.0, mttr=5.0), fault)
    twice = starts(fault, fault)
    assert len(set(twice)) == len(twice) and set(starts(fault)) <= set(twice)


# -- N-16: a gray node ----------------------------------------------------------------------------------------------

SERVICE = 0.01


def pool(rate: float, messages: int, gray: float = 1.0) -> tuple[list[float], Rig, list[deque[float]]]:
    """Ten workers with random routing, of which the first is `gray` times slower; sojourn times (s) of messages."""
    rig = Rig(seed=5, delay=0.0005, heartbeat=1.0)
    workers = [rig.network.host(f"worker.{i}", "worker") for i in range(10)]
    for worker in workers:
        rig.connection(client=worker).keep_open()
    rig.run_for(5.0)
    workers[0].slow_down(gray)
    queues: list[deque[float]] = [deque() for _ in workers]
    sojourns: list[float] = []
    choose = rig.world.stream("routing")
    gaps = rig.world.stream("gaps")

    def arrive(i: int) -> None:
        n = int(choose.integers(10))
        queues[n].append(rig.world.now)
        if len(queues[n]) == 1:
            start(n)
        if i + 1 < messages:
            rig.world.call_later(gaps.exponential(1 / rate), arrive, i + 1)

    def start(n: int) -> None:
        workers[n].work(SERVICE * workers[n].slowness, finish, n)

    def finish(n: int) -> None:
        sojourns.append(rig.world.now - queues[n].popleft())
        if queues[n]:
            start(n)

    arrive(0)
    rig.run_for(messages / rate)
    return sojourns, rig, queues


def test_N16_a_gray_node_raises_the_mean_by_nearly_two_service_times_and_no_detector_notices():
    n = 20_000
    plain, _, _ = pool(rate=1.0, messages=n)
    gray, rig, _ = pool(rate=1.0, messages=n, gray=20.0)
    rise = (math.fsum(gray) / len(gray) - math.fsum(plain) / len(plain)) / SERVICE
    deviation = 19 * math.sqrt(0.1 * 0.9 / n)  # of 19 times the share that chance routes to the gray node
    waiting = (
        0.1 * 20 * (0.1 * 0.2) / 2 / (1 - 0.1 * 0.2)
    )  # M/D/1 at its own load of 2 %, which "low load" neglects
    assert rise == pytest.approx(0.1 * 19 + waiting, abs=Z * deviation)
    assert rig.times_of("client_broken") == rig.times_of("server_broken") == [], "it answers its heartbeats"


@pytest.mark.parametrize("load, diverges", [(0.025, False), (0.10, True)])
def test_N16_the_queue_of_the_gray_node_diverges_from_a_base_load_of_a_twentieth(load, diverges):
    n = 20_000
    _, _, queues = pool(rate=10 * load / SERVICE, messages=n, gray=20.0)
    growth = n / 10 * (1 - 1 / (20 * load))  # what arrives at it less what it can serve
    assert len(queues[0]) == pytest.approx(growth if diverges else 0, abs=0.2 * growth if diverges else 20)
    assert max(len(queue) for queue in queues[1:]) < 20


# -- N-17: the same seed -------------------------------------------------------------------------------------------


def world(*faults: Fault, loss: float = 0.01, **channel: Any) -> Config:
    """A queue on a disk, over connections with heartbeats, 100 messages a second for ten seconds."""
    settings = {"transport": "connection", "storage": "disk", **channel}
    return Config(
        channels={"orders": ChannelConfig("textbook", Channel(**settings))},
        producers={
            "shop": ProducerConfig(Producer("orders", Poisson(100.0), resend=Resend()), ProducerClient())
        },
        services={
            "billing": ServiceConfig(
                Service("orders", consumers=2, service_time=Exponential(0.01)), ConsumerClient()
            )
        },
        network=NetworkSettings(delay=Exponential(0.002), loss=loss, tcp=TcpSettings(heartbeat=1.0)),
        faults=faults,
        duration=10.0,
    )


def digest(run: Run) -> str:
    assert run.trace is not None
    return hashlib.sha256("\n".join(map(repr, run.trace)).encode()).hexdigest()


def test_N17_the_same_seed_gives_the_same_events_and_another_seed_others():
    config = world(
        Fault("crash", "billing.1", mtbf=3.0, mttr=1.0),
        Fault("partition", "shop <-> orders", 2.0, lasting=1.0),
    )
    first, again, other = (digest(simulate(config, seed, trace=True)) for seed in (1, 1, 2))
    assert first == again != other
    assert first != digest(simulate(config, 1, replication=1, trace=True))


def test_N17_one_more_component_leaves_the_draws_of_all_others_unchanged():
    config = world(Fault("crash", "billing.1", mtbf=3.0, mttr=1.0))
    more = replace(
        config,
        channels={"aaa": ChannelConfig("textbook", Channel()), **config.channels},
        producers={
            "first": ProducerConfig(Producer("aaa", Poisson(50.0)), ProducerClient()),
            **config.producers,
        },
        services={"any": ServiceConfig(Service("aaa"), ConsumerClient()), **config.services},
        faults=(Fault("crash", "any", mtbf=1.0, mttr=1.0), *config.faults),
    )
    alone = simulate(config, trace=True).trace or []
    together = [event for event in simulate(more, trace=True).trace or [] if event.channel == "orders"]
    assert len(alone) > 5000 and alone == together


# -- when faults strike ---------------------------------------------------------------------------------------------


def spells_of(fault: Fault, until: float = 100.0, **parts: Any) -> list[tuple[float, float | None]]:
    rig = Rig()
    rig.parts = parts
    faults = rig.faults(fault)
    rig.world.run(until=until)
    return [(spell.start, spell.end) for spell in faults.spells]


def test_a_fault_strikes_at_its_time_and_heals_after_its_duration():
    assert spells_of(Fault("crash", "server", at=3.0, lasting=2.0)) == [(3.0, 5.0)]
    assert spells_of(Fault("crash", "server", at=3.0)) == [(3.0, None)]
    assert spells_of(Fault("crash", "server")) == [(0.0, None)]


def test_a_periodic_fault_strikes_again_and_again():
    assert spells_of(Fault("pause", "server", every=10.0, lasting=1.0), until=35.0) == [
        (10.0, 11.0), (20.0, 21.0), (30.0, 31.0)
    ]  # fmt: skip
    assert spells_of(Fault("pause", "server", at=5.0, every=10.0, lasting=1.0), until=20.0) == [
        (5.0, 6.0), (15.0, 16.0)
    ]  # fmt: skip


def test_a_fault_at_an_event_strikes_a_time_after_its_nth_occurrence():
    rig = Rig()
    calls: list[int] = []
    log = SimpleNamespace(name="log", append=calls.append)
    rig.parts["log"] = log
    faults = rig.faults(Fault("crash", "server", on="log.append #3", after=0.25, lasting=1.0))
    for i in range(10):
        rig.after(float(i), lambda i=i: log.append(i))
    rig.world.run(until=50.0)
    assert calls == list(range(10)), "the event itself happens as ever"
    assert [(spell.start, spell.end) for spell in faults.spells] == [(2.25, 3.25)]


def test_a_fault_right_after_an_event_comes_after_all_that_the_event_does_at_once():
    rig = Rig()
    order: list[str] = []
    log = SimpleNamespace(name="log", append=lambda: order.append("append"))
    rig.parts["log"] = log
    rig.faults(Fault("crash", "server", on="log.append", lasting=1.0))
    rig.server.residents.append(
        SimpleNamespace(crashed=order.append, restarted=lambda: order.append("restart"))
    )

    def event() -> None:
        log.append()
        order.append("ack")

    rig.after(1.0, event)
    rig.world.run(until=50.0)
    assert order == ["append", "ack", "process", "restart"]


@pytest.mark.parametrize("text", ["append #3", "log.append #x", "log. #1", ".append"])
def test_an_event_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r'expected an event such as "orders.accept #3", found'):
        parse_event(text)


def test_an_event_that_a_part_does_not_have_is_refused():
    rig = Rig()
    rig.parts["log"] = SimpleNamespace(name="log")
    with pytest.raises(ValueError, match="log has no event 'apend'"):
        rig.faults(Fault("crash", "server", on="log.apend #1"))


def test_a_target_that_does_not_exist_is_refused_with_the_nearest_name():
    rig = Rig()
    with pytest.raises(
        ValueError, match="expected a host or a group of hosts, found 'sever'; did you mean 'server'"
    ):
        rig.faults(Fault("crash", "sever"))
    with pytest.raises(ValueError, match="found 'cliant'"):
        rig.faults(Fault("partition", "server -> cliant"))


def test_targets_are_hosts_groups_and_pairs():
    rig = Rig()
    workers = [rig.network.host(f"w.{i}", "w") for i in (1, 2)]
    links = [
        rig.link(workers[0], rig.server),
        rig.link(rig.server, workers[0]),
        rig.link(workers[1], rig.client),
    ]
    assert parts_of(rig.network, Fault("crash", "w")) == workers
    assert parts_of(rig.network, Fault("crash", "w.2")) == workers[1:]
    assert parts_of(rig.network, Fault("partition", "w -> server")) == links[:1]
    assert parts_of(rig.network, Fault("partition", "server <-> w")) == links[:2]
    assert parts_of(rig.network, Fault("partition", "w")) == links
    assert parts_of(rig.network, Fault("partition", "* -> client")) == links[2:]


# -- overlapping faults, and healing ----------------------------------------------------------------------------------


class Patient:
    """A host with a disk, a link and a connection, on which faults may act."""

    def __init__(self, heartbeat: float | None = 5.0) -> None:
        self.rig = rig = Rig(heartbeat=heartbeat)
        self.host: Host = rig.server
        self.disk = Disk(rig.server, Constant(0.001))
        self.link = rig.link()
        self.connection = rig.connected()

    def is_ill(self, kind: str) -> bool:
        host, link, stream = self.host, self.link, self.connection.there
        clock = host.clock() != self.rig.world.now
        signs = {
            "fsync_failure": (self.disk.is_failing,),
            "pause": (not host.is_running,),
            "slow": (host.slowness != 1.0,),
            "clock_skew": (clock,),
            "partition": (link.cuts > 0, stream.cuts > 0),
            "slow_link": (link.slowness != 1.0, stream.slowness != 1.0),
            "loss_burst": (link.loss > 0, stream.loss > 0),
        }.get(kind, (not host.is_up,))
        assert len(set(signs)) == 1
        return signs[0]

    def fault(self, kind: str, at: float, lasting: float | None, factor: float = 3.0) -> Fault:
        """A fault that strikes `at` seconds from now."""
        target = "client <-> server" if kind in LINK_KINDS else "server"
        at += self.rig.world.now
        return Fault(kind, target, at, lasting=lasting, factor=factor, loss=1 / factor, skew=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_faults_on_one_target_neither_ends_the_other(kind):
    patient = Patient()
    patient.rig.faults(patient.fault(kind, 1.0, 4.0), patient.fault(kind, 3.0, 7.0, factor=7.0))
    ill = []
    patient.rig.run_for(0.5)
    for _ in range(12):
        ill.append(patient.is_ill(kind))
        patient.rig.run_for(1.0)
    assert ill == [False] + [True] * 9 + [False] * 2  # from 1 to 10 s


def test_a_host_that_crashed_otherwise_stays_down_until_both_are_over():
    rig = Rig()
    rig.faults(Fault("machine_crash", "server", at=1.0, lasting=3.0))
    rig.after(2.0, rig.server.crash)  # a poison message, say
    rig.after(6.0, rig.server.restart)
    for seconds, is_up in ((0.5, True), (2.0, False), (2.5, False), (1.5, True)):
        rig.run_for(seconds)
        assert rig.server.is_up == is_up


@pytest.mark.parametrize("kind", KINDS)
def test_heal_ends_everything_also_on_a_host_that_crashed_meanwhile_and_nothing_strikes_any_more(kind):
    patient = Patient()
    rig = patient.rig
    faults = rig.faults(
        patient.fault(kind, 1.0, None), patient.fault(kind, 50.0, None), patient.fault("crash", 2.0, None)
    )
    rig.run_for(3.0)
    assert patient.is_ill(kind) and not patient.host.is_up
    faults.heal()
    rig.run_for(100.0)
    assert not any(patient.is_ill(k) for k in KINDS)
    assert patient.host.is_running and patient.host.is_machine_up
    assert len(faults.spells) == 2 and all(spell.end is not None for spell in faults.spells)
    assert patient.connection.is_established, "and the connection is back"


def test_heal_stops_faults_by_chance_and_periodic_ones():
    rig = Rig()
    faults = rig.faults(
        Fault("crash", "server", mtbf=1.0, mttr=1.0), Fault("pause", "client", every=2.0, lasting=1.0)
    )
    rig.world.run(until=20.5)
    faults.heal()
    struck = len(faults.spells)
    rig.world.run(until=1000.0)
    assert len(faults.spells) == struck and rig.server.is_running and rig.client.is_running
    assert rig.world.run_until_quiet(2000.0), "a schedule of faults does not keep the world awake"


def test_a_wrong_clock_is_off_by_its_skew_and_by_its_drift_since_the_fault_began():
    rig = Rig()
    rig.faults(Fault("clock_skew", "server", at=100.0, lasting=50.0, skew=-2.0, drift=0.01))
    seen = []
    for time in (99.0, 101.0, 149.0, 151.0):
        rig.world.run(until=time)
        seen.append(rig.server.clock() - time)
        assert rig.client.clock() == time, "the other clocks are right"
    assert seen == [0.0, pytest.approx(-2.0 + 0.01), pytest.approx(-2.0 + 0.49), 0.0]


# -- faults that acted, and faults that did not -----------------------------------------------------------------------


def acting(kind: str, at: float, target: str | None = None) -> Fault:
    where = target or (
        "shop <-> orders"
        if kind in LINK_KINDS
        else "billing.1"
        if kind in ("slow", "clock_skew")
        else "orders"
    )
    return Fault(kind, where, at, lasting=1.0, factor=5.0, loss=0.5, skew=1.0)  # type: ignore[arg-type]


def clocked(config: Config) -> Config:
    """The same, with consumers that look at their clocks."""
    billing = config.services["billing"]
    app = replace(billing.app, idempotence=Idempotence(ttl=60.0))
    return replace(config, services={"billing": replace(billing, app=app)})


@pytest.mark.parametrize("transport", ["datagram", "connection"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_each_kind_acts_on_traffic_and_is_not_reported(kind, transport):
    run = simulate(clocked(world(acting(kind, 4.0), transport=transport)))
    (spell,) = run.faults.spells
    assert (spell.kind, spell.start, spell.end) == (kind, 4.0, 5.0)
    assert spell.touched > 0
    assert run.faults.inert() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_never_strikes_is_reported(kind):
    run = simulate(world(acting(kind, 1e6)))
    assert run.faults.spells == []
    assert run.faults.inert() == [f"{kind} of {acting(kind, 0).target}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_on_an_idle_part_is_reported(kind):
    patient = Patient(heartbeat=None)
    if kind in ("stop", "crash", "machine_crash", "disk_loss"):
        patient.host.connections.clear()  # else it breaks a connection
    faults = patient.rig.faults(fault := patient.fault(kind, 1.0, 20.0))
    patient.rig.run_for(30.0)
    assert faults.inert() == [f"{kind} of {fault.target}"]


def test_faults_of_other_kinds_that_overlap_do_not_take_credit():
    rig = Rig(loss=0.0)
    link = rig.link()
    faults = rig.faults(
        Fault("slow", "server", at=1.0, lasting=5.0),
        Fault("clock_skew", "server", at=1.0, lasting=5.0, skew=1.0),
        Fault("loss_burst", "client -> server", at=1.0, lasting=5.0, loss=1.0),
        Fault("slow_link", "client -> server", at=1.0, lasting=5.0),
        Fault("pause", "server", at=1.0, lasting=5.0),
    )
    rig.after(2.0, rig.send, link, 1)
    rig.run_for(10.0)
    assert [spell.kind for spell in faults.spells if spell.touched] == ["loss_burst"]


def test_a_burst_of_loss_below_the_loss_of_the_link_is_inert():
    rig = Rig(loss=0.5)
    rig.send_every(0.01, 500, rig.link())
    faults = rig.faults(Fault("loss_burst", "client -> server", at=1.0, lasting=3.0, loss=0.4))
    rig.run_for(10.0)
    assert faults.inert() == ["loss_burst of client -> server"]


def test_a_pause_that_only_delays_work_under_way_has_acted():
    rig = Rig()
    rig.server.work(5.0, lambda: None)
    faults = rig.faults(Fault("pause", "server", at=1.0, lasting=1.0))
    rig.run_for(10.0)
    assert faults.inert() == []


@pytest.mark.parametrize("kind", ["crash", "pause"])
def test_a_loss_of_arrivals_alone_is_an_act(kind):
    rig = Rig(delay=0.01)
    link = rig.link()
    faults = rig.faults(
        Fault(kind, "server", at=1.0, lasting=1.0), Fault(kind, "server", at=3.0, lasting=1.0)
    )
    rig.after(1.5, rig.send, link, 1)
    rig.run_for(10.0)
    assert [spell.touched for spell in faults.spells] == [1, 0]


def test_a_timer_that_comes_due_while_its_host_is_down_is_an_act():
    rig = Rig()
    rig.server.call_later(1.5, lambda: None)
    faults = rig.faults(
        Fault("crash", "server", at=1.0, lasting=1.0), Fault("crash", "server", at=3.0, lasting=1.0)
    )
    rig.run_for(10.0)
    assert [spell.touched for spell in faults.spells] == [1, 0]


@pytest.mark.parametrize("kind, lost", [("crash", 0), ("machine_crash", 1), ("disk_loss", 2)])
def test_a_loss_of_records_alone_is_an_act(kind, lost):
    rig = Rig()
    journal: Journal[str] = Journal(Disk(rig.server, Constant(0.0)))
    journal.add("synced")
    journal.sync(lambda is_ok: journal.add("written"))
    faults = rig.faults(Fault(kind, "server", at=1.0, lasting=1.0))
    rig.run_for(10.0)
    assert faults.spells[0].touched == lost


def test_a_one_way_partition_acts_on_acks():
    rig = Rig()
    connection = rig.connected()
    faults = rig.faults(Fault("partition", "server -> client", at=1.0, lasting=1.0))
    rig.after(1.5, rig.send, connection.there, 1)
    rig.run_for(10.0)
    assert rig.copies == [1] and faults.inert() == []


def test_deterministic_arrivals_meet_a_periodic_fault_as_often_as_it_strikes():
    config = world(Fault("pause", "shop", every=1.0, lasting=0.005), loss=0.0)
    producer = config.producers["shop"]
    config = replace(
        config, producers={"shop": replace(producer, app=replace(producer.app, arrivals=Deterministic(1.0)))}
    )
    run = simulate(config)
    struck = [spell for spell in run.faults.spells if spell.touched]
    assert len(struck) == len(run.faults.spells) == 9


def test_work_that_a_pause_stops_in_its_last_instant_is_done_when_the_pause_ends() -> None:
    world = World(1)
    host = Host(world, "worker")
    done: list[float] = []
    world.call_at(3.1, host.pause)
    world.call_at(7.8, host.resume)
    host.work(3.1, lambda: done.append(world.now))
    world.run()
    assert done == [7.8]


# -- clusters and roles -----------------------------------------------------------------------------------------------


class Cluster:
    """Three nodes of the group "orders", all linked; `leader` is whichever the test says."""

    def __init__(self, rig: Rig, nodes: int = 3) -> None:
        self.hosts = [rig.network.host(f"orders.{i + 1}", "orders") for i in range(nodes)]
        self.links = {
            (a.name[-1], b.name[-1]): rig.link(a, b) for a in self.hosts for b in self.hosts if a is not b
        }
        self.leader: Host | None = self.hosts[0]
        rig.parts["orders"] = self

    def role(self, name: str) -> Host | None:
        assert name == "leader"
        return self.leader


def cut_links(cluster: Cluster) -> set[str]:
    return {"".join(ends) for ends, link in cluster.links.items() if link.cuts}


def test_a_group_is_struck_as_one_and_its_inner_links_by_naming_it_twice():
    rig = Rig()
    cluster = Cluster(rig)
    outer = rig.link(rig.client, cluster.hosts[0])
    rig.faults(
        Fault("crash", "orders", at=1.0, lasting=1.0),
        Fault("partition", "orders <-> orders", at=3.0, lasting=1.0),
        Fault("partition", "orders.2 <-> orders.3", at=5.0, lasting=1.0),
        Fault("partition", "orders.2 -> orders", at=7.0, lasting=1.0),
        Fault("partition", "orders.1", at=9.0, lasting=1.0),
    )
    rig.run_for(1.5)
    assert not any(host.is_up for host in cluster.hosts)
    rig.run_for(2.0)
    assert all(host.is_up for host in cluster.hosts)
    assert cut_links(cluster) == {"12", "13", "21", "23", "31", "32"} and not outer.cuts
    rig.run_for(2.0)
    assert cut_links(cluster) == {"23", "32"}
    rig.run_for(2.0)
    assert cut_links(cluster) == {"21", "23"}
    rig.run_for(2.0)
    assert cut_links(cluster) == {"12", "21", "13", "31"} and outer.cuts


def test_a_fault_strikes_whoever_has_the_role_then_and_heals_the_one_it_struck():
    rig = Rig()
    cluster = Cluster(rig)
    one, two, three = cluster.hosts
    faults = rig.faults(Fault("machine_crash", "orders.leader", at=1.0, every=10.0, lasting=5.0))
    rig.after(0.5, setattr, cluster, "leader", two)
    rig.after(2.0, setattr, cluster, "leader", three)
    rig.run_for(3.0)
    assert (one.is_up, two.is_up, three.is_up) == (True, False, True)
    rig.run_for(5.0)
    assert two.is_up
    rig.run_for(5.0)
    assert (one.is_up, two.is_up, three.is_up) == (True, True, False)
    faults.heal()
    assert three.is_up and [spell.target for spell in faults.spells] == ["orders.leader"] * 2


def test_links_of_whoever_has_the_role_are_struck():
    rig = Rig()
    cluster = Cluster(rig)
    rig.faults(
        Fault("partition", "orders.leader <-> *", at=1.0, lasting=1.0),
        Fault("partition", "orders -> orders.leader", at=3.0, lasting=1.0),
        Fault("partition", "orders.leader", at=5.0, lasting=1.0),
    )
    rig.after(0.5, setattr, cluster, "leader", cluster.hosts[1])
    rig.run_for(1.5)
    assert cut_links(cluster) == {"12", "21", "23", "32"}
    rig.run_for(2.0)
    assert cut_links(cluster) == {"12", "32"}
    rig.run_for(2.0)
    assert cut_links(cluster) == {"12", "21", "23", "32"}
    rig.run_for(2.0)
    assert cut_links(cluster) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_a_role_that_nobody_ever_had_is_inert(kind):
    rig = Rig()
    Cluster(rig).leader = None
    faults = rig.faults(Fault(kind, "orders.leader", at=1.0, lasting=1.0, skew=1.0))
    rig.run_for(5.0)
    assert faults.inert() == [f"{kind} of orders.leader"] and len(faults.spells) == 1


def test_a_role_of_a_part_that_has_none_is_refused():
    rig = Rig()
    rig.parts["server"] = SimpleNamespace(name="server")
    for target in ("server.leader", "servr.leader", "orders.4"):
        with pytest.raises(ValueError, match=f"found '{target}'"):
            rig.faults(Fault("crash", target, at=1.0))
