"""A sender and a client library that takes no more for a while, refuses, and reports what is in doubt."""

from __future__ import annotations

from typing import Any

import pytest

from sim.apps import GAVE_UP, PRODUCER_CRASHED, Resend
from sim.kernel import World
from sim.ledger import CONFIRMED, FAILED, Ledger, cause_of
from sim.network import Network, NetworkSettings
from sim.producing import Sender

LOST = PRODUCER_CRASHED  # stands for the cause of a system
FOR_EVER = Resend(timeout=None)


class Library:
    """A client library that notes what it is given, and is not ready after each `batch` copies."""

    def __init__(self, batch: int | None = None) -> None:
        self.batch, self.is_ready = batch, True
        self.sent: list[tuple[float, int]] = []

    def publish(self, copy: int) -> None:
        assert self.is_ready, "a sender asks before"
        self.sent.append((self.world.now, copy))
        if self.batch is not None and len(self.sent) % self.batch == 0:
            self.is_ready = False

    def ready(self) -> None:
        self.is_ready = True
        self.sender.client_ready()

    def given(self, resend: Resend | None = FOR_EVER, window: int | None = None) -> Library:
        """The library with a sender of its own, of the channel "orders"."""
        self.world = World(1)
        self.messages = Ledger(self.world).channel("orders")
        self.pairs = self.messages.subscription("billing")
        self.messages.producers.append("shop")
        host = Network(self.world, NetworkSettings()).host("shop")
        self.told: list[int] = []

        class Sim:
            world = self.world

        sim: Any = Sim()
        self.sender = Sender(sim, host, self.messages, resend, window, self.told.append)
        self.sender.client = self
        return self

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.sender.send(self.messages.publish(0, 0, 0))

    @property
    def copies(self) -> list[int]:
        return [copy for _, copy in self.sent]

    @property
    def messages_sent(self) -> list[int]:
        return [self.messages.message_of(copy) for copy in self.copies]


# -- a library that takes no more for a while -------------------------------------------------------------------------


@pytest.mark.parametrize("resend", [FOR_EVER, Resend(timeout=10.0)])
def test_what_the_library_does_not_take_waits_in_order(resend):
    library = Library(batch=2).given(resend)
    library.send(5)
    assert library.copies == [0, 1]
    library.ready()
    assert library.copies == [0, 1, 2, 3], "it stops in the middle of what waits"
    library.send(1)
    library.ready()
    assert library.copies == [0, 1, 2, 3, 4, 5]
    assert len(library.sender.unconfirmed) == 6 and not library.sender.waiting


def test_the_window_counts_what_was_taken_and_not_what_waits():
    library = Library(batch=2).given(window=3)
    library.send(6)
    library.ready()
    assert library.copies == [0, 1, 2]
    library.sender.confirmed(0)
    assert library.copies == [0, 1, 2, 3] and not library.is_ready
    library.sender.confirmed(1)
    library.sender.confirmed(2)
    assert library.copies == [0, 1, 2, 3], "the window is open, the library is not ready"
    library.ready()
    assert library.copies == [0, 1, 2, 3, 4, 5]


def test_the_time_to_an_ack_runs_from_when_the_library_took_the_message():
    library = Library(batch=1).given(Resend(timeout=1.0))
    library.send(2)
    library.world.call_later(0.7, library.ready)
    library.world.run(until=1.5)
    assert library.sent == [(0.0, 0), (0.7, 1)], "message 0 timed out at 1 s, when the library was not ready"
    library.batch = None
    library.world.call_later(0.0, library.ready)
    library.world.run(until=2.1)
    assert [(time, library.messages.message_of(copy)) for time, copy in library.sent[2:]] == [
        (1.7, 1),
        (2.0, 0),
    ]


def test_a_library_that_becomes_ready_while_it_publishes_keeps_the_order_and_the_stack():
    library = Library(batch=1).given()
    library.send(5000)
    publish = library.publish

    def publish_and_flush(copy: int) -> None:
        publish(copy)
        library.ready()

    library.publish = publish_and_flush  # type: ignore[method-assign]
    library.ready()
    assert library.copies == list(range(5000))


def test_a_library_may_have_overdue_resends_sent_as_soon_as_it_is_ready_and_first():
    for at_once in (False, True):
        library = Library(batch=1).given(Resend(timeout=1.0))
        library.sender.resends_when_ready = at_once
        library.send(3)
        library.world.call_later(1.25, library.ready)
        library.world.run(until=1.5)
        assert library.messages_sent == ([0, 0] if at_once else [0, 1])


# -- waiting for ever -------------------------------------------------------------------------------------------------


def test_without_a_timeout_silence_is_waited_out():
    library = Library().given()
    library.send(2)
    library.world.run(until=1e9)
    assert library.copies == [0, 1] and list(library.sender.holdings()) == [0, 1]
    library.sender.confirmed(1)
    assert list(library.sender.holdings()) == [0] and library.told == [1]


def test_without_a_timeout_what_is_refused_is_sent_again_at_once_or_after_the_back_off():
    for backoff, due in ((0.0, 5.0), (2.0, 7.0)):
        library = Library().given(Resend(timeout=None, backoff=backoff))
        library.send()
        library.world.call_later(5.0, library.sender.refused, 0)
        library.world.run(until=100.0)
        assert [time for time, _ in library.sent] == [0.0, due] and library.messages_sent == [0, 0]
        library.sender.confirmed(library.copies[1])
        assert library.messages.outcome[0] == CONFIRMED and library.told == [0]


def test_with_a_timeout_what_is_refused_waits_for_it_and_what_is_in_doubt_too():
    library = Library().given(Resend(timeout=10.0))
    library.send(2)
    library.world.call_later(5.0, library.sender.refused, 0)
    library.world.call_later(5.0, library.sender.in_doubt, 1)
    library.world.call_later(6.0, library.sender.all_in_doubt)
    library.world.run(until=11.0)
    assert [time for time, _ in library.sent] == [0.0, 0.0, 10.0, 10.0]


def test_what_is_in_doubt_goes_out_before_what_waits_as_soon_as_the_library_is_ready():
    library = Library().given(window=3)
    library.send(5)
    library.world.run(until=1.0)
    library.sender.confirmed(1)
    library.is_ready = False
    library.messages.not_heard(2, LOST)
    library.sender.all_in_doubt()
    assert library.copies == [0, 1, 2, 3]
    library.world.run(until=60.0)
    assert library.copies == [0, 1, 2, 3] and sorted(library.sender.holdings()) == [0, 2, 3, 4]
    library.batch = 1
    for _ in range(4):
        library.ready()
    assert library.messages_sent[4:] == [0, 2, 3] and library.sent[4][0] == 60.0, "the window is full"
    library.sender.confirmed(library.copies[4])
    assert library.messages_sent[7:] == [4]
    born = {
        library.messages.message_of(copy): library.messages.copy_cause[~copy] for copy in library.copies[4:7]
    }
    assert born == {0: library.messages.late, 2: LOST, 3: library.messages.late}


def test_word_about_an_earlier_copy_changes_nothing():
    library = Library().given()
    library.send()
    library.sender.in_doubt(0)
    assert library.messages_sent == [0, 0]
    library.sender.in_doubt(0)
    library.sender.refused(0)
    assert library.messages_sent == [0, 0]
    library.sender.in_doubt(library.copies[1])
    assert library.messages_sent == [0, 0, 0]
    library.sender.confirmed(0)
    library.sender.in_doubt(library.copies[2])
    assert library.messages_sent == [0, 0, 0] and list(library.sender.holdings()) == []


def test_attempts_bound_what_is_in_doubt():
    library = Library().given(Resend(timeout=None, attempts=2))
    library.send()
    library.sender.in_doubt(0)
    assert library.messages_sent == [0, 0] and library.told == []
    library.sender.all_in_doubt()
    assert library.messages_sent == [0, 0] and library.told == [0]
    assert cause_of(library.pairs.fate[0]).name == cause_of(GAVE_UP).name
    assert list(library.sender.holdings()) == []


def test_the_deadline_bounds_what_is_in_doubt():
    library = Library().given(Resend(timeout=None, deadline=10.0, backoff=4.0))
    library.send()
    library.world.call_later(3.0, library.sender.all_in_doubt)
    library.world.call_later(8.0, library.sender.all_in_doubt)
    library.world.run(until=100.0)
    assert [time for time, _ in library.sent] == [0.0, 7.0] and library.told == [0]


def test_an_answer_in_the_back_off_ends_it():
    library = Library().given(Resend(timeout=None, backoff=1.0))
    library.send(2)
    library.sender.all_in_doubt()
    library.sender.confirmed(0)
    library.sender.returned(1)
    library.world.run(until=100.0)
    assert library.copies == [0, 1] and library.told == [0, 1]


def test_what_is_overdue_and_confirmed_before_the_library_is_ready_is_not_sent_again():
    library = Library().given()
    library.send(2)
    library.is_ready = False
    library.sender.all_in_doubt()
    library.sender.confirmed(0)
    library.ready()
    assert library.messages_sent == [0, 1, 1]


def test_what_nobody_wants_is_refused_for_good():
    library = Library().given(window=1)
    library.send(2)
    library.sender.returned(0)
    assert library.copies == [0, 1] and library.told == [0] and library.messages.outcome[0] == FAILED
    library.sender.confirmed(0)  # the ack that follows a return
    library.sender.returned(0)
    assert library.messages.outcome[0] == FAILED and library.told == [0]


def test_a_crash_takes_what_is_overdue():
    library = Library().given()
    library.send(3)
    library.is_ready = False
    library.sender.all_in_doubt()
    library.sender.crashed("process")
    library.ready()
    assert library.copies == [0, 1, 2] and list(library.sender.holdings()) == []
    assert [library.pairs.fate[i] for i in range(3)] == [PRODUCER_CRASHED] * 3


def test_who_asks_for_no_acks_is_told_of_nothing():
    library = Library().given(resend=None)
    library.send(2)
    library.sender.refused(0)
    library.sender.all_in_doubt()
    library.sender.returned(1)
    assert library.copies == [0, 1] and library.told == []
