"""Planted mistakes that the tests must notice: each changes one place of the sources, and so what the models do.

`old` is exact text that occurs once in its file, so a change to the source breaks the mutant loudly instead of
leaving it without a place (`test_mutants_apply.py`). `first` names the tests most likely to notice; where they do
not, the wider fast set of `run.py` is asked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One mistake: `file` under sim/, what stands there, what is put in its place, and what is wrong with that.

    `first` are tests under tests/: files, or "file::test".
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    first: tuple[str, ...]


UNIT_KERNEL = "unit/test_kernel.py"
TEXTBOOK = "conformance/test_textbook.py"
NETWORK = "conformance/test_network.py"
STORAGE = "conformance/test_storage.py"
FAULTS = "conformance/test_faults.py"
CAUSES = "conformance/test_causes.py"
STREAMS = "conformance/test_streams.py"
PRODUCING = "conformance/test_producing.py"
BOOKS = "properties/test_books.py"
SURVIVORS = "unit/test_survivors.py"

KERNEL = (
    Mutant(
        "reverse-order-at-equal-times",
        "kernel.py",
        "self.next_number = self._eid.__next__",
        "self.next_number = lambda: -next(self._eid)",
        "what is due at the same instant happens in the order in which it was scheduled",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "run-includes-its-end",
        "kernel.py",
        "_FIRST = -1 ",
        "_FIRST = 9 ",
        "a run until a time leaves what is due exactly then to the next run, as in SimPy",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "background-keeps-awake",
        "kernel.py",
        "if len(agenda) <= self._background:",
        "if not agenda:",
        "a world with nothing but its background left is quiet",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "timeouts-fire-after-removal",
        "kernel.py",
        "return self._due.pop(key, None) is not None",
        "return key in self._due",
        "what was acknowledged in time must not expire",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "re-added-key-keeps-its-place",
        "kernel.py",
        "        if key in due:\n            del due[key]\n",
        "",
        "a timeout that starts anew goes behind all others",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "stream-ignores-its-component",
        "kernel.py",
        "digest = hashlib.blake2b(name.encode(), digest_size=16).digest()",
        'digest = hashlib.blake2b(name.rpartition(".")[2].encode(), digest_size=16).digest()',
        "two components draw the same numbers, so that what should be independent is not (N-17)",
        (SURVIVORS,),
    ),
    Mutant(
        "stream-depends-on-order",
        "kernel.py",
        "spawn_key=(self.replication, *words)",
        "spawn_key=(self.replication, len(self._streams))",
        "one component more shifts the draws of all others (N-17)",
        (UNIT_KERNEL,),
    ),
    Mutant(
        "replications-are-alike",
        "kernel.py",
        "spawn_key=(self.replication, *words)",
        "spawn_key=(0, *words)",
        "replications are independent",
        (UNIT_KERNEL,),
    ),
)

LEDGER = (
    Mutant(
        "duplicate-not-counted",
        "ledger.py",
        "self.processings[message] = n + 1",
        "self.processings[message] = 1",
        "every processing of a message counts, not only the first",
        (TEXTBOOK,),
    ),
    Mutant(
        "first-death-stands",
        "ledger.py",
        '''        """A copy of this subscription is gone."""
        self.fate[''',
        '''        """A copy of this subscription is gone."""
        if self.fate[self.messages.message_of(copy)]:
            return
        self.fate[''',
        "the last death of a copy explains the loss, not the first",
        (TEXTBOOK,),
    ),
    Mutant(
        "refused-stays-refused",
        "ledger.py",
        "if self.outcome[message] != CONFIRMED:",
        "if self.outcome[message] == IN_DOUBT:",
        "a message that was refused and then accepted is confirmed",
        (TEXTBOOK,),
    ),
    Mutant(
        "confirmed-anew",
        "ledger.py",
        "if self.outcome[message] != CONFIRMED:",
        "if True:",
        "the time of the first ack counts",
        (SURVIVORS,),
    ),
    Mutant(
        "ancestry-forgotten",
        "ledger.py",
        "self.copy_parent.append(parent)",
        "self.copy_parent.append(self.message_of(parent))",
        "a copy of a copy is born of that copy, whose cause may be the root",
        (CAUSES,),
    ),
    Mutant(
        "output-is-a-new-message",
        "ledger.py",
        "            return self.copy(message, cause)\n        message = self.derived",
        "            return self.publish(self.producers.index(service), size, 0)\n        message = self.derived",
        "what is published for an input that is processed again is a copy, not a new message",
        (TEXTBOOK,),
    ),
    Mutant(
        "delivered-at-the-last-delivery",
        "ledger.py",
        "        if n == 0:\n            self.delivered_at[message] = now",
        "        self.delivered_at[message] = now",
        "the first delivery counts for the latency's parts",
        (SURVIVORS,),
    ),
)

METRICS = (
    Mutant(
        "latency-from-the-broker",
        "metrics.py",
        "(f.processed - f.created)[",
        "(f.processed - f.stored)[",
        "latency counts from the intended creation; else an outage hides what had to wait for it",
        (SURVIVORS,),
    ),
    Mutant(
        "warmup-ignored",
        "metrics.py",
        '[(f.place == "unique") & (f.created >= warmup)]',
        '[(f.place == "unique")]',
        "latencies of messages created in the warm-up do not count",
        (SURVIVORS,),
    ),
    Mutant(
        "loss-not-reported",
        "metrics.py",
        "causes[anomaly, int(code)] += int(np.count_nonzero(ends_here))",
        "pass",
        "every loss has a cause in the report",
        (CAUSES,),
    ),
    Mutant(
        "audit-sleeps",
        "metrics.py",
        "        if is_wrong:\n",
        "        if False:\n",
        "books that do not balance stop a run",
        (SURVIVORS,),
    ),
    Mutant(
        "repeat-of-the-first-is-blamed",
        "metrics.py",
        "roots.remove(None)",
        "roots.pop()",
        "of copies processed the first is spared, and the cause of each other one is counted",
        (CAUSES,),
    ),
    Mutant(
        "equal-times-out-of-order",
        "metrics.py",
        "started[rows][:-1] > earliest_after[1:]",
        "started[rows][:-1] >= earliest_after[1:]",
        "messages started at the same instant are in order",
        (SURVIVORS,),
    ),
    Mutant(
        "phantoms-expected",
        "metrics.py",
        '"phantom": total(processings[~expected])',
        '"phantom": 0',
        "what a service processes though it does not want it is a phantom",
        (BOOKS,),
    ),
)

NET = (
    Mutant(
        "partition-leaks",
        "network.py",
        "        if self.cuts:\n            return self._send_into_cut",
        "        if self.cuts > 1:\n            return self._send_into_cut",
        "nothing passes a cut",
        (NETWORK, FAULTS),
    ),
    Mutant(
        "one-mend-ends-all-cuts",
        "network.py",
        "self.cuts -= 1",
        "self.cuts = 0",
        "of two partitions that overlap neither ends the other",
        (FAULTS,),
    ),
    Mutant(
        "partition-always-both-ways",
        "network.py",
        "return [(a, b), (b, a)] if both else [(a, b)]",
        "return [(a, b), (b, a)]",
        '"a -> b" is one direction only',
        (FAULTS, NETWORK),
    ),
    Mutant(
        "network-loss-not-reported",
        "network.py",
        "self.hop.dropped(copy, self.hop.lost)",
        "pass",
        "who drops a copy says so",
        (NETWORK, BOOKS),
    ),
    Mutant(
        "doubled-datagram-has-no-name",
        "network.py",
        "self._transmit(handler, self.hop.duplicated(copy, self.hop.twice), args)",
        "self._transmit(handler, copy, args)",
        "a datagram that the network doubled is a further copy, with a cause",
        (NETWORK, CAUSES),
    ),
    Mutant(
        "wire-is-never-busy",
        "network.py",
        "self._free_at = max(now, self._free_at) + ",
        "self._free_at = now + ",
        "messages queue for the wire",
        (NETWORK,),
    ),
    Mutant(
        "draws-depend-on-fate",
        "network.py",
        "    def _lose(self, copy: int) -> None:\n        self.delay()\n",
        "    def _lose(self, copy: int) -> None:\n",
        "a datagram takes its draws whatever becomes of it, so that those of later ones stay",
        (NETWORK,),
    ),
    Mutant(
        "parallel-paths-share-a-stream",
        "network.py",
        'return name if self._names[name] == 1 else f"{name}#{self._names[name]}"',
        "return name",
        "two paths between the same hosts draw independently",
        (NETWORK,),
    ),
    Mutant(
        "bursts-never-come",
        "network.py",
        "while now >= self._until:",
        "while False:",
        "a Gilbert-Elliott link has bad times",
        (NETWORK,),
    ),
)

CONNECTION = (
    Mutant(
        "later-segment-overtakes",
        "stream.py",
        "        if arrival < self.last_arrival:\n            arrival = self.last_arrival\n",
        "",
        "inside a connection nothing is reordered",
        (NETWORK,),
    ),
    Mutant(
        "no-head-of-line-blocking",
        "stream.py",
        "            self.hole.behind(arrival, segment)\n        elif arrival == math.inf:",
        "            self.schedule(arrival, segment)\n        elif arrival == math.inf:",
        "what was sent after a lost segment waits for it",
        (NETWORK,),
    ),
    Mutant(
        "stale-data-delivered",
        "stream.py",
        "self._era += 1",
        "self._era += 0",
        "data of an old connection never arrives on the new one",
        (NETWORK,),
    ),
    Mutant(
        "rto-does-not-double",
        "stream.py",
        "min(stream.rto * 2.0**self.timeouts, stream.tcp.rto_max)",
        "min(stream.rto, stream.tcp.rto_max)",
        "the retransmission timer backs off (RFC 6298)",
        (NETWORK,),
    ),
    Mutant(
        "two-duplicate-acks-are-enough",
        "stream.py",
        "if self._later == 3:",
        "if self._later == 2:",
        "fast retransmit takes three later segments (RFC 5681)",
        (NETWORK,),
    ),
    Mutant(
        "stream-partition-leaks",
        "stream.py",
        '''returns when it arrives (s), infinity if it is lost."""
        departure = self._departure(copy)
        if self.cuts:''',
        '''returns when it arrives (s), infinity if it is lost."""
        departure = self._departure(copy)
        if self.cuts > 1:''',
        "nothing passes a cut on a connection either",
        (NETWORK, FAULTS),
    ),
    Mutant(
        "break-loses-in-silence",
        "stream.py",
        "        for _, copy, _ in lost:\n            self.hop.dropped(copy, self.hop.broken)",
        "        pass",
        "what a connection that breaks takes with it is reported",
        (NETWORK, BOOKS),
    ),
    Mutant(
        "dead-machine-sends-a-reset",
        "connection.py",
        'if kind == "process":',
        "if kind:",
        "a process that dies resets its connections, a machine that dies says nothing",
        (NETWORK,),
    ),
    Mutant(
        "heartbeat-too-patient",
        "heartbeats.py",
        "(self.misses + 1) * self.every",
        "(self.misses + 2) * self.every",
        "silence is noticed m to m + 1 heartbeats after it began",
        (NETWORK,),
    ),
    Mutant(
        "syn-is-never-lost",
        "connection.py",
        "transit = self.there.control_transit()",
        "transit = self.there.control_delay()",
        "connecting over a path that is cut or lossy takes repeated SYNs",
        (NETWORK,),
    ),
    Mutant(
        "reconnects-without-backoff",
        "connection.py",
        "min(2 * self._backoff, self.tcp.reconnect_max)",
        "self._backoff",
        "a client that connects in vain waits twice as long each time",
        (SURVIVORS,),
    ),
    Mutant(
        "a-cut-spares-what-has-not-left",
        "connection.py",
        "if not stream.is_well:",
        "if False:",
        "what befalls the path before a segment leaves befalls the segment",
        (STREAMS,),
    ),
    Mutant(
        "a-paused-sender-sends",
        "connection.py",
        "end.outgoing.take_back()",
        "pass",
        "a process that stands still sends nothing",
        (STREAMS,),
    ),
    Mutant(
        "a-dead-machine-sends-on",
        "stream.py",
        "waiting += [segment for _, segment in self._take_back()]",
        "pass",
        "what a machine has not sent when it dies never leaves",
        (STREAMS,),
    ),
    Mutant(
        "who-does-not-read-reads",
        "stream.py",
        "self._reader = _NobodyReads",
        "pass",
        "what arrives while a process does not read waits in its kernel",
        (STREAMS,),
    ),
    Mutant(
        "unread-data-survives-the-reader",
        "stream.py",
        "            for _ in range(unread):\n                self.hop.dropped(",
        "            for _ in range(0):\n                self.hop.dropped(",
        "what a dead machine had sent and a dead process has not read is lost, and reported",
        (STREAMS,),
    ),
    Mutant(
        "second-look-closes",
        "heartbeats.py",
        "(math.floor((heard_at - opened_at) / self.every) + 3)",
        "(math.floor((heard_at - opened_at) / self.every) + 2)",
        "the look after the last byte sees a change; the two after it do not",
        (STREAMS,),
    ),
    Mutant(
        "data-is-no-sign-of-life",
        "connection.py",
        "if rule.hears_data:",
        "if False:",
        "an end that looks whether anything came counts data as well",
        (STREAMS,),
    ),
    Mutant(
        "forgotten-while-connecting-comes-back",
        "connection.py",
        "        self._is_wanted = False\n        self._attempt += 1\n",
        "        self._is_wanted = False\n",
        "a client that forgets a connection gives up connecting as well",
        (STREAMS,),
    ),
)

HOST = (
    Mutant(
        "pause-does-not-stop-work",
        "host.py",
        "elif self.frozen == frozen:",
        "elif True:",
        "work stops in a pause and goes on after it",
        (FAULTS,),
    ),
    Mutant(
        "crash-cancels-nothing",
        "host.py",
        "self.epoch += 1",
        "self.epoch += 0",
        "what an old epoch scheduled never runs",
        (UNIT_KERNEL, FAULTS),
    ),
    Mutant(
        "pause-reverses-what-it-held",
        "host.py",
        "function, args, _ = self._held.popleft()",
        "function, args, _ = self._held.pop()",
        "what came due in a pause happens after it in order",
        (FAULTS, NETWORK),
    ),
    Mutant(
        "one-restart-ends-all-crashes",
        "host.py",
        "self._downs -= 1",
        "self._downs = 0",
        "a host is up again when each of its crashes is over",
        (FAULTS,),
    ),
    Mutant(
        "clock-does-not-drift",
        "host.py",
        "skew + drift * (now - since)",
        "skew",
        "a clock that drifts is off by more and more",
        (FAULTS,),
    ),
)

DISK = (
    Mutant(
        "page-cache-survives-power-loss",
        "storage.py",
        '        live = dict(self._on_device)\n        if kind == "process":',
        '        live = dict(self._on_device)\n        if kind != "disk":',
        "a power loss keeps only what was synced",
        (STORAGE, TEXTBOOK),
    ),
    Mutant(
        "fsync-not-shared",
        "storage.py",
        "waiting, self._waiting = self._waiting, []",
        "waiting, self._waiting = self._waiting[:1], self._waiting[1:]",
        "all who wait share the next flush (group commit)",
        (STORAGE,),
    ),
    Mutant(
        "flush-saves-what-came-later",
        "storage.py",
        "self._settle(written, is_ok)",
        "self._settle(len(self._dirty), is_ok)",
        "a flush saves what was written before it began",
        (STORAGE,),
    ),
    Mutant(
        "failed-fsync-saves",
        "storage.py",
        "is_ok = not self.is_failing",
        "is_ok = True",
        "while a fault lasts every fsync fails",
        (STORAGE, FAULTS),
    ),
    Mutant(
        "failed-fsync-leaves-dirty-pages",
        "storage.py",
        "                    marked_clean[key] = (is_live, number)",
        "                    self.write((key,) if is_live else (), () if is_live else (key,))",
        "pages whose fsync failed count as clean and no later fsync writes them",
        (STORAGE,),
    ),
    Mutant(
        "crash-does-not-end-a-flush",
        "storage.py",
        "if crashes != self._crashes:",
        "if False:",
        "a flush under way at a crash has saved nothing",
        (STORAGE, TEXTBOOK),
    ),
)

# Every kind of fault, and the function in sim/faults.py that carries it out.
STRIKES = {
    "stop": "_stop",
    "crash": "_crash",
    "machine_crash": "_crash",
    "disk_loss": "_crash",
    "fsync_failure": "_fail_fsync",
    "partition": "_cut",
    "slow": "_slow",
    "slow_link": "_slow",
    "pause": "_pause",
    "loss_burst": "_flood",
    "clock_skew": "_skew",
}

FAULT = (
    *(
        Mutant(
            f"{kind}-does-nothing",
            "faults.py",
            f'"{kind}": {strike},',
            f'"{kind}": lambda fault, parts: lambda: None,',
            "a fault acts",
            (FAULTS,),
        )
        for kind, strike in STRIKES.items()
    ),
    Mutant(
        "slow-spell-does-nothing",
        "faults.py",
        "return _each(parts, lambda part: part.slow_down(fault.factor), ",
        "return _each(parts, lambda part: part.slow_down(1.0), ",
        "a slow host is slower by its factor",
        (FAULTS,),
    ),
    Mutant(
        "inert-fault-not-reported",
        "faults.py",
        "if not any(spell.touched for spell in s.spells)",
        "if not s.spells",
        "a fault that struck and touched nothing is most often a mistake of the scenario",
        (FAULTS,),
    ),
    Mutant(
        "faults-strike-after-healing",
        "faults.py",
        "self.is_over = True",
        "self.is_over = False",
        "nothing strikes while a run drains",
        (FAULTS,),
    ),
    Mutant(
        "repair-takes-as-long-as-failure",
        "faults.py",
        "self._random.exponential(mttr)",
        "self._random.exponential(self.fault.mtbf)",
        "down times have the mean that the scenario says",
        (FAULTS,),
    ),
    Mutant(
        "fault-at-every-event",
        "faults.py",
        "if seen == count:",
        "if seen <= count:",
        "a fault at the n-th event strikes at that event",
        (FAULTS,),
    ),
    Mutant(
        "equal-faults-share-a-stream",
        "faults.py",
        "{fault.mttr}.{number}",
        "{fault.mttr}",
        "two faults by chance strike independently of each other",
        (FAULTS,),
    ),
    Mutant(
        "role-of-the-first-time",
        "faults.py",
        "self._parts = self._find()",
        "self._parts = self._parts or self._find()",
        "a fault of a role strikes whoever has it then",
        (FAULTS,),
    ),
)

BROKER = (
    Mutant(
        "confirm-cannot-be-lost",
        "brokers/textbook/client.py",
        "self.answers.send(self.sender.confirmed, copy)",
        "self.broker.world.call_later(self.answers.delay(), self.sender.confirmed, copy)",
        "the ack of a publish is a packet, and can be lost like any other",
        (CAUSES, TEXTBOOK),
    ),
    Mutant(
        "ack-cannot-be-lost",
        "brokers/textbook/client.py",
        "self.answers.send(self.session.acked, tag)",
        "self.broker.world.call_later(self.answers.delay(), self.session.acked, tag)",
        "the ack of a delivery is a packet, and can be lost like any other",
        (CAUSES, TEXTBOOK),
    ),
    Mutant(
        "confirm-before-the-sync",
        "brokers/textbook/broker.py",
        'elif client.wants_confirms and (journal is None or self.settings.sync != "before_ack"):',
        "elif client.wants_confirms:",
        "the ack waits for the device where it is told to",
        (TEXTBOOK,),
    ),
    Mutant(
        "known-number-acked-before-it-is-safe",
        "brokers/textbook/broker.py",
        'if self.journal is not None and self.settings.sync == "before_ack":',
        "if False:",
        "a resend whose first copy is still being synced is acked when that is safe, not sooner",
        (SURVIVORS,),
    ),
    Mutant(
        "crash-keeps-the-queue",
        "brokers/textbook/broker.py",
        "        self.ready.clear()\n",
        "",
        "a crash takes the memory of the broker's process",
        (TEXTBOOK,),
    ),
    Mutant(
        "crash-keeps-the-numbers",
        "brokers/textbook/broker.py",
        "        if self.journal is None:\n            self.accepted.clear()",
        "        if self.journal is None:\n            pass",
        "the numbers that a broker without a disk has accepted die with its process",
        (SURVIVORS,),
    ),
    Mutant(
        "redelivery-never-fires",
        "brokers/textbook/broker.py",
        "Timeouts(self.broker.host, timeout or math.inf, self.timed_out)",
        "Timeouts(self.broker.host, math.inf, self.timed_out)",
        "a delivery unacked for the ack timeout is taken back",
        (TEXTBOOK,),
    ),
    Mutant(
        "prefetch-ignored",
        "brokers/textbook/broker.py",
        "math.inf if settings.prefetch is None or self.is_auto else settings.prefetch",
        "math.inf",
        "a consumer never holds more than its prefetch unacked",
        (TEXTBOOK,),
    ),
    Mutant(
        "requeue-at-the-tail",
        "brokers/textbook/broker.py",
        "self.ready.appendleft(again)",
        "self.ready.append(again)",
        "what is taken back returns to the head",
        (TEXTBOOK,),
    ),
    Mutant(
        "requeue-in-reverse",
        "brokers/textbook/broker.py",
        "for copy in reversed(copies):",
        "for copy in copies:",
        "a window that is taken back keeps its order",
        (TEXTBOOK,),
    ),
    Mutant(
        "one-attempt-too-few",
        "brokers/textbook/broker.py",
        "if self.attempts[message] > limit:",
        "if self.attempts[message] >= limit:",
        "a message has `max_attempts` deliveries",
        (TEXTBOOK,),
    ),
    Mutant(
        "dead-letter-counted-as-lost",
        "brokers/textbook/broker.py",
        "if self.broker.settings.dead_letter:",
        "if False:",
        "what is parked is not lost",
        (TEXTBOOK, CAUSES),
    ),
    Mutant(
        "late-ack-still-counts",
        "brokers/textbook/broker.py",
        "        if not self.unacked.remove(copy):\n            return\n",
        "        self.unacked.remove(copy)\n",
        "an ack for a delivery that was taken back changes nothing",
        (TEXTBOOK,),
    ),
    Mutant(
        "one-consumer-takes-all",
        "brokers/textbook/broker.py",
        "                free.append(session)",
        "                free.appendleft(session)",
        "competing consumers are served round robin",
        (TEXTBOOK,),
    ),
    Mutant(
        "drop-head-drops-the-newest",
        "brokers/textbook/broker.py",
        "self._drop(self.ready.popleft(), DROPPED_HEAD)",
        "self._drop(self.ready.pop(), DROPPED_HEAD)",
        "a full queue that drops its head keeps the newest",
        (TEXTBOOK,),
    ),
    Mutant(
        "unroutable-not-reported",
        "brokers/textbook/broker.py",
        "queue.pairs.died(copy, UNROUTABLE)",
        "pass",
        "a message that no binding matches is lost to those who want it, and is reported",
        (TEXTBOOK, CAUSES),
    ),
)

APPS = (
    Mutant(
        "backoff-without-growth",
        "producing.py",
        "rule.backoff * rule.factor ** (attempt - 1)",
        "rule.backoff",
        "back-off grows with the attempts",
        (TEXTBOOK,),
    ),
    Mutant(
        "no-jitter",
        "producing.py",
        "wait *= self._jitter()",
        "wait *= 0.5",
        "full jitter is uniform up to the back-off",
        (TEXTBOOK,),
    ),
    Mutant(
        "one-send-too-many",
        "producing.py",
        "attempt >= rule.attempts",
        "attempt > rule.attempts",
        "`attempts` bounds the sends of a message",
        (TEXTBOOK,),
    ),
    Mutant(
        "window-ignored",
        "producing.py",
        "(self.window and len(self.unconfirmed) + len(self.resting) >= self.window)\n            or",
        "False\n            or",
        "no more than a window is unconfirmed",
        (TEXTBOOK,),
    ),
    Mutant(
        "window-ignored-when-ready-again",
        "producing.py",
        "elif self.waiting and not (\n                self.window and ",
        "elif self.waiting and not (\n                False and ",
        "no more than a window is unconfirmed, also when a library is ready again",
        (PRODUCING,),
    ),
    Mutant(
        "new-ones-before-overdue-ones",
        "producing.py",
        "if self.overdue:\n                self._resend(",
        "if self.overdue and not self.waiting:\n                self._resend(",
        "what was sent before and is in doubt goes out before what is new",
        (PRODUCING,),
    ),
    Mutant(
        "word-about-an-old-copy-counts",
        "producing.py",
        "is_last_sent = copy == self.resent.get(message, message)",
        "is_last_sent = True",
        "an answer to an earlier copy says nothing about the last one",
        (PRODUCING,),
    ),
    Mutant(
        "publishing-library-overturns-the-queue",
        "producing.py",
        "        if self._is_pumping:\n            return",
        "        if False:\n            return",
        "a library that is ready again while it publishes does not recurse",
        (PRODUCING,),
    ),
    Mutant(
        "producer-crash-keeps-its-memory",
        "producing.py",
        "            self.messages.died(copy, PRODUCER_CRASHED)\n        self._start_empty()\n",
        "            self.messages.died(copy, PRODUCER_CRASHED)\n",
        "a producer that crashed resends nothing",
        (CAUSES, BOOKS),
    ),
    Mutant(
        "producers-share-arrivals",
        "producing.py",
        'stream(f"{name}.arrivals")',
        'stream("arrivals")',
        "every producer draws its arrivals from a stream of its own",
        (FAULTS,),
    ),
    Mutant(
        "dedup-off-by-one",
        "consuming.py",
        "len(self._ids) > self.size",
        "len(self._ids) >= self.size",
        "an idempotent consumer remembers `size` ids",
        (SURVIVORS,),
    ),
    Mutant(
        "ttl-ignored",
        "consuming.py",
        "        if self.ttl is not None:\n",
        "        if False:\n",
        "what is older than the ttl is forgotten",
        (TEXTBOOK,),
    ),
    Mutant(
        "effect-outside-the-transaction",
        "consuming.py",
        "if self.memory is None and ids.knows(message, now):",
        "if False:",
        "of two copies at work at once only one has an effect where the id is in the transaction",
        (TEXTBOOK,),
    ),
    Mutant(
        "consumer-crash-keeps-its-memory",
        "consuming.py",
        "        self.up_time += now - self._up_since\n        self._start_empty()\n",
        "        self.up_time += now - self._up_since\n",
        "a crash takes the inbox, the work under way and the ids in memory",
        (TEXTBOOK,),
    ),
    Mutant(
        "input-settled-before-its-output",
        "consuming.py",
        "if self.sender.resend is None:",
        "if True:",
        "an input is settled when its output is confirmed",
        (TEXTBOOK,),
    ),
    Mutant(
        "gray-node-works-at-full-speed",
        "consuming.py",
        "host.work(self.app.demand(message) * host.slowness, self._finish_plainly, delivery)",
        "host.work(self.app.demand(message), self._finish_plainly, delivery)",
        "a slow host serves slowly",
        (CAUSES,),
    ),
    Mutant(
        "faults-go-on-while-draining",
        "simulation.py",
        "self.faults.heal()",
        "pass",
        "faults heal when arrivals end",
        (SURVIVORS,),
    ),
)

MUTANTS = (*KERNEL, *LEDGER, *METRICS, *NET, *CONNECTION, *HOST, *DISK, *FAULT, *BROKER, *APPS)
