"""Applications that produce: what they owe to the world, and how they see to it that it is sent."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sim.apps import GAVE_UP, PRODUCER_CRASHED, PRODUCER_DOWN, Keys, Producer, ProducerPort, Resend
from sim.arrivals import ClosedLoop
from sim.distributions import Weighted, Zipf
from sim.kernel import Timeouts
from sim.ledger import FAILED as TOLD_FAILED
from sim.ledger import Messages
from sim.network import Host

if TYPE_CHECKING:
    from sim.simulation import Simulation


class Sender:
    """Sends messages through a client library and, where it is told to, resends them until they are acknowledged.

    Everything it remembers is its process's memory. `on_told(message)` is called once for every message whose sending
    is over: confirmed, refused for good, or given up.

    With a timeout of None a message is sent again only when the client library says that it was not stored
    (`refused`) or that nobody knows (`in_doubt`, `all_in_doubt`), and as soon as the library is ready.
    """

    client: ProducerPort

    def __init__(
        self,
        sim: Simulation,
        host: Host,
        messages: Messages,
        resend: Resend | None,
        window: int | None = None,
        on_told: Callable[[int], Any] | None = None,
    ) -> None:
        self.world, self.host, self.messages = sim.world, host, messages
        self.resend, self.window, self.on_told = resend, window, on_told
        # For libraries that are ready for moments only, in which something else might always be first.
        self.resends_when_ready = resend is None or resend.timeout is None
        self._jitter = sim.world.uniforms(f"{host.name}.{messages.name}.backoff")
        self._start_empty()
        host.residents.append(self)

    def _start_empty(self) -> None:
        timeout = self.resend.timeout if self.resend else None
        self.waits_for_word = timeout is None
        self.unconfirmed: Timeouts[int] = Timeouts(
            self.host, math.inf if timeout is None else timeout, self._send_again
        )
        self.resting: dict[int, None] = {}
        self.overdue: deque[int] = deque()  # of those resting, what goes out as soon as the library is ready
        self.waiting: deque[int] = deque()
        self.attempts: dict[int, int] = {}
        self.resent: dict[int, int] = {}  # the copy last sent of what was sent more than once
        self.tokens = self.resend.budget if self.resend else None
        self._is_pumping = False

    def send(self, copy: int) -> None:
        """Send a copy now, or as soon as the window and the client library allow."""
        if copy < 0:
            self.resent[self.messages.message_of(copy)] = copy
        if self.resend is None:
            self.client.publish(copy)
        elif (
            (self.window and len(self.unconfirmed) + len(self.resting) >= self.window)
            or not self.client.is_ready
            or self.waiting
        ):
            self.waiting.append(copy)
        else:
            self.unconfirmed.add(copy if copy >= 0 else self.messages.message_of(copy))
            self.client.publish(copy)

    def client_ready(self) -> None:
        """The client library can send again."""
        self._pump()

    def _pump(self) -> None:
        """Send what waits for the library or the window, as far as both allow: overdue resends first."""
        if self._is_pumping:
            return  # the library has become ready while it published: the loop below goes on
        self._is_pumping = True
        while self.client.is_ready:
            if self.overdue:
                self._resend(self.overdue.popleft())
            elif self.waiting and not (
                self.window and len(self.unconfirmed) + len(self.resting) >= self.window
            ):
                copy = self.waiting.popleft()
                self.unconfirmed.add(copy if copy >= 0 else self.messages.message_of(copy))
                self.client.publish(copy)
            else:
                break
        self._is_pumping = False

    def confirmed(self, copy: int) -> None:
        """The broker acknowledged a copy."""
        messages = self.messages
        message = copy if copy >= 0 else messages.message_of(copy)
        if self.unconfirmed.remove(message) or message in self.resting:  # else nobody listens any more
            messages.confirmed(message)
            if self.tokens is not None and self.resend is not None and self.resend.budget is not None:
                self.tokens = min(self.resend.budget, self.tokens + 1)
            self._over(message)

    def refused(self, copy: int) -> None:
        """The broker refused a copy; it is sent again after the timeout, if there is to be another attempt.

        Without a timeout that is at once, or after the back-off. A library that knows why tells the books first
        (`messages.not_heard`): the cause of the next copy.
        """
        message = self.messages.message_of(copy)
        if message not in self.unconfirmed and message not in self.resting:
            return
        self.messages.failed(message)
        if self.resend is not None and self.attempts.get(message, 1) == self.resend.attempts:
            self.unconfirmed.remove(message)
            self._over(message)
        elif self.waits_for_word:
            self.in_doubt(copy)

    def in_doubt(self, copy: int) -> None:
        """The connection broke before an answer to this copy came. With a timeout that makes no difference.

        The cause of the next copy is what the library has told the books (`messages.not_heard`) before.
        """
        message = self.messages.message_of(copy)
        is_last_sent = copy == self.resent.get(message, message)
        if self.waits_for_word and is_last_sent and self.unconfirmed.remove(message):
            self._send_again(message)

    def all_in_doubt(self) -> None:
        """The connection broke: no answer will come to anything that is unconfirmed."""
        for message in list(self.unconfirmed):
            self.in_doubt(self.resent.get(message, message))

    def returned(self, copy: int) -> None:
        """The broker has nobody to give a copy to, and sending it again would not help: it is refused for good."""
        message = self.messages.message_of(copy)
        if self.unconfirmed.remove(message) or message in self.resting:
            self.messages.failed(message)
            self._over(message)

    def _over(self, message: int) -> None:
        if self.resting:
            self.resting.pop(message, None)
        copy = self.resent.pop(message, message) if self.resent else message
        if self.attempts:
            self.attempts.pop(message, 0)
        if self.messages.unheard:
            self.messages.unheard.pop(copy, 0)
        if self.waiting or self.overdue:
            self._pump()
        if self.on_told is not None:
            self.on_told(message)

    def _send_again(self, message: int) -> None:
        """No ack came in time, or word that none will come: send it again after the back-off, or give it up."""
        assert self.resend is not None
        rule, attempt = self.resend, self.attempts.get(message, 1)
        wait = min(rule.backoff_max, rule.backoff * rule.factor ** (attempt - 1)) if rule.backoff else 0.0
        if rule.jitter == "full":
            wait *= self._jitter()
        if rule.attempts is not None and attempt >= rule.attempts:
            return self._give_up(message)
        if (
            rule.deadline is not None
            and self.world.now + wait >= self.messages.created[message] + rule.deadline
        ):
            return self._give_up(message)
        if self.tokens is not None:
            if self.tokens < rule.budget_cost:
                return self._give_up(message)
            self.tokens -= rule.budget_cost
        self.attempts[message] = attempt + 1
        self.resting[message] = None
        if wait:
            self.host.call_later(wait, self._resend, message)
        else:
            self._resend(message)

    def _resend(self, message: int) -> None:
        if message not in self.resting:
            return  # confirmed meanwhile
        if not self.client.is_ready:
            if self.resends_when_ready:
                self.overdue.append(message)
            else:
                self.host.call_later(self.unconfirmed.delay, self._resend, message)
            return
        del self.resting[message]
        self.unconfirmed.add(message)
        copy = self.resent[message] = self.messages.resent(self.resent.get(message, message))
        self.client.publish(copy)

    def _give_up(self, message: int) -> None:
        if self.messages.outcome[message] != TOLD_FAILED:  # one that was refused stays refused
            self.messages.died(message, GAVE_UP)
            self.messages.in_doubt(message)
        self._over(message)

    def crashed(self, kind: str) -> None:
        """The process's memory is gone, and with it whatever was not acknowledged."""
        self.host.touched += len(self.unconfirmed) + len(self.resting) + len(self.waiting)
        for message in [*self.unconfirmed, *self.resting]:
            self.messages.died(message, PRODUCER_CRASHED)
        for copy in self.waiting:
            self.messages.died(copy, PRODUCER_CRASHED)
        self._start_empty()

    def restarted(self) -> None:
        """Nothing is left to go on with."""

    def holdings(self) -> Iterator[int]:
        """Messages that it would still send."""
        yield from self.unconfirmed
        yield from self.resting
        for copy in self.waiting:
            yield self.messages.message_of(copy)


class Source:
    """The world's demand: messages that an application owes, at the instants of its arrival process."""

    def __init__(
        self, sim: Simulation, name: str, host: Host, messages: Messages, settings: Producer
    ) -> None:
        self.sim, self.world, self.host, self.messages, self.settings = (
            sim,
            sim.world,
            host,
            messages,
            settings,
        )
        self.number = len(messages.producers)
        messages.producers.append(name)
        self.limit = settings.messages if settings.messages is not None else sim.config.messages
        self.published = 0
        self.is_over = False
        self._size = settings.size.draws(sim.world.stream(f"{name}.sizes"))
        self._key = key_draws(settings.keys, sim, name, messages)
        self._is_closed = isinstance(settings.arrivals, ClosedLoop)
        on_told = self._answered if self._is_closed else None
        window = settings.arrivals.window if isinstance(settings.arrivals, ClosedLoop) else settings.window
        self.sender = Sender(sim, host, messages, settings.resend, window, on_told)
        self._random = sim.world.stream(f"{name}.arrivals")

    def start(self) -> None:
        """Let the first message arrive in its time."""
        arrivals: Any = self.settings.arrivals
        if self._is_closed:
            think = arrivals.think
            self._think = think.draws(self._random) if think is not None else lambda: 0.0
            for _ in range(arrivals.window):
                self._answered(-1)
        else:
            self._times = arrivals.times(self._random)
            self._next()

    def _next(self) -> None:
        time = next(self._times, None)
        if time is None or time > self.sim.duration or self.published == self.limit:
            self.is_over = True
            self.sim.source_over()
        else:
            self.world.call_at(time, self._arrive)

    def _arrive(self) -> None:
        self._publish()
        self._next()

    def _publish(self) -> None:
        self.published += 1
        messages = self.messages
        size = 0 if messages.sizes is None else int(self._size())
        message = messages.publish(self.number, size, 0 if messages.keys is None else self._key())
        if self.host.is_running:
            self.sender.send(message)
        elif self.host.is_up:
            self.host.hold(self.sender.send, (message,), self._never_sent)
        else:
            self.host.touched += 1
            self.messages.died(message, PRODUCER_DOWN)
            if self._is_closed:
                self.world.in_background(1.0, self._answered, message)

    def _never_sent(self, message: int) -> None:
        """The process crashed while a pause kept it from sending."""
        self.messages.died(message, PRODUCER_CRASHED)

    def _answered(self, message: int) -> None:
        """Closed loop: a caller has its answer, thinks, and asks again."""
        if self.is_over or self.published == self.limit or self.world.now > self.sim.duration:
            if not self.is_over:
                self.is_over = True
                self.sim.source_over()
            return
        self.world.call_later(self._think(), self._ask)

    def _ask(self) -> None:
        if not self.is_over and self.published != self.limit and self.world.now <= self.sim.duration:
            self._publish()


def key_draws(keys: Keys | None, sim: Simulation, name: str, messages: Messages) -> Callable[[], int]:
    """A function that draws the key of the next message, as an index into `messages.key_names`."""
    if keys is None:
        return lambda: 0
    values = keys.values or tuple(str(i) for i in range(keys.number or 1))
    numbers = [messages.key_number(value) for value in values]
    generator = sim.world.stream(f"{name}.keys")
    if keys.values:
        draw = Weighted(keys.weights or (1.0,) * len(values)).draws(generator)
    else:
        draw = Zipf(len(values), keys.skew).draws(generator)
    return lambda: numbers[draw()]
