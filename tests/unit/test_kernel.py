"""The kernel: SimPy unchanged in a World, the fast lane beside it, timeouts, random streams, running and stopping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simpy

from sim.host import Host
from sim.kernel import Timeouts, World


@pytest.fixture
def world() -> World:
    return World(seed=1)


@pytest.fixture
def log() -> list[Any]:
    return []


# -- SimPy in a World -------------------------------------------------------------------------------------------------


def carwash(env: simpy.Environment) -> list[tuple[float, str]]:
    """Processes, a resource, a store, a container, conditions and an interrupt, as one would write them in SimPy."""
    seen: list[tuple[float, str]] = []
    machine = simpy.PriorityResource(env, capacity=1)
    store = simpy.Store(env, capacity=2)
    tank = simpy.Container(env, capacity=10, init=3)
    opened = env.event()

    def say(what: str) -> None:
        seen.append((env.now, what))

    def car(name: str, priority: int) -> Iterator[Any]:
        with machine.request(priority=priority) as request:
            result = yield request | env.timeout(6)
            if request not in result:
                say(f"{name} left")
                return
            say(f"{name} in")
            yield env.timeout(5)
        yield store.put(name)
        say(f"{name} out")

    def collector() -> Iterator[Any]:
        yield opened
        say(f"opened with {opened.value}")
        while True:
            item = yield store.get()
            yield tank.get(2) & env.timeout(1)
            say(f"collected {item}")

    def supplier() -> Iterator[Any]:
        try:
            while True:
                yield env.timeout(4)
                yield tank.put(1)
                say(f"tank {tank.level}")
        except simpy.Interrupt as interrupt:
            say(f"interrupted by {interrupt.cause}")
            yield env.timeout(0)
            say("over")

    def director(victim: simpy.Process) -> Iterator[Any]:
        yield env.timeout(3)
        opened.succeed("music")
        yield env.all_of([env.timeout(9), env.timeout(1)])
        victim.interrupt("director")
        yield victim
        say("all done")

    for name, priority in (("a", 1), ("b", 2), ("c", 0), ("d", 2)):
        env.process(car(name, priority))
    env.process(collector())
    env.process(director(env.process(supplier())))
    env.run(until=40)
    return seen


def test_processes_resources_stores_conditions_and_interrupts_behave_as_in_simpy():
    expected = carwash(simpy.Environment())
    assert len(expected) > 12
    assert carwash(World()) == expected


def test_an_error_in_a_process_comes_out_of_run(world):
    def broken() -> Iterator[Any]:
        yield world.timeout(1)
        raise RuntimeError("broken")

    world.process(broken())
    with pytest.raises(RuntimeError, match="broken"):
        world.run()


def test_run_until_an_event_returns_its_value_and_raises_its_failure(world):
    assert world.run(until=world.timeout(3, value="done")) == "done"
    assert world.now == 3.0
    event = world.event()
    world.call_later(1.0, event.fail, KeyError("lost"))
    with pytest.raises(KeyError, match="lost"):
        world.run(until=event)
    with pytest.raises(RuntimeError, match="No scheduled events left"):
        world.run(until=world.event())


def test_both_lanes_happen_in_the_order_of_scheduling_at_equal_times(world, log):
    def process(name: str) -> Iterator[Any]:
        yield world.timeout(1.0)
        log.append(name)

    world.call_later(1.0, log.append, "call 1")
    world.timeout(1.0).callbacks.append(lambda event: log.append("event 2"))
    world.call_at(1.0, log.append, "call 3")
    world.process(process("process 5"))  # starts at 0 and schedules its timeout then
    world.call_later(1.0, log.append, "call 4")
    world.run()
    assert log == ["call 1", "event 2", "call 3", "call 4", "process 5"]


def test_a_process_can_wait_for_the_fast_lane_and_the_fast_lane_for_a_process(world, log):
    bell = world.event()
    world.call_later(2.0, bell.succeed, "ding")

    def listener() -> Iterator[Any]:
        log.append((yield bell))
        world.call_later(1.0, lambda: log.append(world.now))

    world.process(listener())
    world.run()
    assert log == ["ding", 3.0]


def test_peek_and_step_see_both_lanes(world, log):
    world.call_later(2.0, log.append, "call")
    world.timeout(1.0)
    assert world.peek() == 1.0
    world.step()
    assert (world.now, world.peek(), log) == (1.0, 2.0, [])
    world.step()
    assert (world.now, log) == (2.0, ["call"])
    with pytest.raises(simpy.core.EmptySchedule):
        world.step()


# -- the fast lane --------------------------------------------------------------------------------------------------


def test_calls_happen_in_order_of_time_and_at_equal_times_of_scheduling(world, log):
    for delay, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (0.0, "now"), (2.0, "d")):
        world.call_later(delay, lambda name=name: log.append((world.now, name)))
    world.run()
    assert log == [(0.0, "now"), (1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]


@pytest.mark.parametrize("delay", [-1e-9, -1.0, -math.inf, math.nan])
def test_a_call_in_the_past_or_at_no_time_raises(world, delay):
    world.run(until=5.0)
    for schedule in (world.call_later, lambda d, f: world.call_at(5.0 + d, f), world.in_background):
        with pytest.raises(ValueError, match="cannot be called"):
            schedule(delay, print)
    with pytest.raises(ValueError):
        world.timeout(delay)
    done: list[float] = []
    world.call_later(1.0, lambda: done.append(world.now))
    assert world.run_until_quiet(10.0) and done == [6.0], "and nothing was left behind"


def test_a_call_now_is_not_in_the_past(world, log):
    world.run(until=5.0)
    world.call_at(5.0, log.append, 1)
    world.run()
    assert (world.now, log) == (5.0, [1])


# -- running and stopping -------------------------------------------------------------------------------------------


def test_run_until_a_time_leaves_what_is_due_then_to_the_next_run(world, log):
    for time in (1.0, 2.0, 3.0):
        world.call_at(time, log.append, time)
    world.run(until=2.0)
    assert (world.now, log) == (2.0, [1.0])
    world.run(until=2.5)
    assert (world.now, log) == (2.5, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"cannot run until 2.0 s: it is 2.5 s"):
        world.run(until=2.0)
    world.run()
    assert (world.now, log) == (3.0, [1.0, 2.0, 3.0])


def test_stop_ends_the_run_and_the_next_one_goes_on(world, log):
    def stop() -> None:
        log.append("stop")
        world.stop()

    world.call_later(1.0, stop)
    world.call_later(1.0, log.append, "after")
    world.run()
    assert (world.now, log) == (1.0, ["stop"])
    world.run_until_stopped(10.0)
    assert log == ["stop", "after"]


@pytest.mark.parametrize("run", ["run", "run_until_stopped", "run_until_quiet", "event"])
def test_stop_works_in_every_kind_of_run(world, run):
    world.call_later(1.0, world.stop)
    world.call_later(2.0, lambda: None)
    if run == "run":
        world.run()
    elif run == "event":
        world.run(until=world.timeout(5.0))
    else:
        getattr(world, run)(100.0)
    assert world.now == 1.0


def test_run_until_stopped_ends_before_its_limit(world, log):
    world.call_later(5.0, log.append, "due at the limit")
    world.run_until_stopped(5.0)
    assert log == []


def test_the_world_is_quiet_when_only_the_background_is_left(world, log):
    def beat() -> None:
        log.append(world.now)
        world.in_background(1.0, beat)

    beat()
    world.call_later(3.5, log.append, "work")
    assert world.run_until_quiet(100.0)
    assert (world.now, log) == (3.5, [0.0, 1.0, 2.0, 3.0, "work"])
    assert world.run_until_quiet(100.0), "and stays quiet"
    assert world.now == 3.5


def test_run_until_quiet_gives_up_at_its_limit(world, log):
    world.call_later(50.0, log.append, "late")
    assert not world.run_until_quiet(10.0)
    assert (world.now, log) == (10.0, [])
    assert world.run_until_quiet(50.0)
    assert log == ["late"]


def test_work_that_the_background_starts_keeps_the_world_awake(world, log):
    world.in_background(1.0, lambda: world.call_later(5.0, log.append, "work"))
    world.call_later(2.0, log.append, "first")
    assert world.run_until_quiet(100.0)
    assert log == ["first", "work"]


# -- timeouts ---------------------------------------------------------------------------------------------------------


def test_keys_expire_a_constant_delay_after_they_were_added_unless_removed(world, log):
    timeouts: Timeouts[str] = Timeouts(world, 2.0, lambda key: log.append((world.now, key)))
    for time, key in ((0.0, "a"), (0.5, "b"), (1.0, "c")):
        world.call_at(time, timeouts.add, key)
    world.call_at(1.5, timeouts.remove, "b")
    world.run()
    assert log == [(2.0, "a"), (3.0, "c")]
    assert len(timeouts) == 0


def test_a_key_that_is_added_again_starts_anew_behind_the_others(world, log):
    timeouts: Timeouts[str] = Timeouts(world, 2.0, lambda key: log.append((world.now, key)))
    timeouts.add("a")
    world.call_at(0.5, timeouts.add, "b")
    world.call_at(1.0, timeouts.add, "a")
    world.run()
    assert log == [(2.5, "b"), (3.0, "a")]


def test_a_key_can_be_added_or_removed_when_another_or_itself_expires(world, log):
    def expired(key: str) -> None:
        log.append((world.now, key))
        if key == "a" and len(log) < 3:
            timeouts.add("a")
            timeouts.remove("b")

    timeouts: Timeouts[str] = Timeouts(world, 1.0, expired)
    for key in "abc":
        timeouts.add(key)
    world.run()
    assert log == [(1.0, "a"), (1.0, "c"), (2.0, "a")]


def test_it_can_be_used_again_after_it_ran_empty(world, log):
    timeouts: Timeouts[str] = Timeouts(world, 1.0, lambda key: log.append((world.now, key)))
    timeouts.add("a")
    world.run()
    world.run(until=5.0)
    timeouts.add("b")
    timeouts.remove("b")
    world.call_at(5.5, timeouts.add, "c")  # while the entry of "b" is still on the agenda
    world.run()
    assert log == [(1.0, "a"), (6.5, "c")]


def test_it_is_a_map_of_what_is_outstanding(world):
    timeouts: Timeouts[str] = Timeouts(world, 1.0, print)
    for key in "bac":
        timeouts.add(key)
    assert list(timeouts) == ["b", "a", "c"] and len(timeouts) == 3 and "a" in timeouts
    assert timeouts.remove("a") and not timeouts.remove("a") and "a" not in timeouts
    assert timeouts.clear() == ["b", "c"] and len(timeouts) == 0


def test_many_keys_cost_one_entry_on_the_agenda(world):
    timeouts: Timeouts[int] = Timeouts(world, 10.0, print)
    for i in range(1000):
        world.call_at(i * 0.001, timeouts.add, i)
    world.run(until=5.0)
    assert len(world.agenda) == 1
    for i in range(1000):
        timeouts.remove(i)
    world.run()
    assert world.now == 10.0, "and one wake-up"


def test_an_infinite_delay_expires_nothing_and_needs_no_agenda(world):
    timeouts: Timeouts[int] = Timeouts(world, math.inf, print)
    timeouts.add(1)
    assert world.agenda == [] and list(timeouts) == [1]


@pytest.mark.parametrize("delay", [0.0, -1.0, math.nan])
def test_a_timeout_of_nothing_is_refused(world, delay):
    with pytest.raises(ValueError, match="longer than 0 s"):
        Timeouts(world, delay, print)


def test_the_crash_of_their_host_cancels_timeouts_and_a_pause_delays_them(world, log):
    host = Host(world, "h")
    timeouts: Timeouts[str] = Timeouts(host, 1.0, lambda key: log.append((world.now, key)))
    timeouts.add("a")
    world.call_at(0.5, host.pause)
    world.call_at(3.0, host.resume)
    world.run()
    assert log == [(3.0, "a")]
    timeouts.add("b")
    host.crash()
    host.restart()
    timeouts = Timeouts(host, 1.0, lambda key: log.append((world.now, key)))
    timeouts.add("c")
    world.run()
    assert log == [(3.0, "a"), (4.0, "c")]


# -- random streams ---------------------------------------------------------------------------------------------------


def draws(world: World, name: str) -> list[float]:
    return world.stream(name).random(5).tolist()


def test_a_stream_depends_on_its_name_the_seed_and_the_replication_only():
    reference = draws(World(1), "shop.arrivals")
    assert draws(World(1), "shop.arrivals") == reference
    others = [
        draws(World(1), "shop.sizes"),
        draws(World(2), "shop.arrivals"),
        draws(World(1, replication=1), "shop.arrivals"),
    ]
    assert all(set(other).isdisjoint(reference) for other in others)


def test_a_stream_does_not_depend_on_the_order_of_creation_or_on_other_draws():
    first, second = World(1), World(1)
    a, b = draws(first, "a"), draws(first, "b")
    for i in range(10):
        draws(second, f"other {i}")
    assert (draws(second, "b"), draws(second, "a")) == (b, a)


def test_the_same_name_gives_the_same_object(world):
    assert world.stream("a") is world.stream("a")
    assert world.stream("a") is not world.stream("b")


def test_streams_of_many_names_are_uncorrelated():
    n = 200
    world = World(7)
    sample = np.array([world.stream(f"link {i}").random(n) for i in range(50)])
    correlations = np.corrcoef(sample)[np.triu_indices(50, k=1)]
    # of independent samples: mean 0 and variance 1 / (n - 1); 1225 of them, 99.9 %
    assert abs(correlations.mean()) < 3.29 / math.sqrt((n - 1) * len(correlations))
    assert correlations.std() == pytest.approx(1 / math.sqrt(n - 1), rel=0.1)


def test_uniforms_are_the_draws_of_the_stream():
    uniform = World(3).uniforms("x")
    assert [uniform() for _ in range(3000)] == World(3).stream("x").random(3000).tolist()
