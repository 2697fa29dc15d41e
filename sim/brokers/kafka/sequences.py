"""Sequence numbers of an idempotent producer in one partition, and what it knows of them (K-15, KIP-360)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.brokers.kafka.producer import ProducerBatch


class Sequences:
    """One partition's sequence numbers, from 0 in each epoch.

    `sent` are the batches that have one and are not over: in flight, or waiting to be sent again. After a batch was
    given up nobody knows whether it is in the log: until that is resolved nothing gets a new number.

    The model counts an epoch per partition, where the real client has one for all and takes it over in each partition
    when that has nothing in flight: a log cannot tell the difference.
    """

    def __init__(self, epoch: int = 0) -> None:
        self.begin(epoch)
        self.sent: list[ProducerBatch] = []

    def begin(self, epoch: int) -> None:
        """A new epoch forgets what was before it."""
        self.epoch = epoch
        self.next = 0  # the next number to be given
        self.acked = 0  # what the leader said that it has is below
        self.unresolved: int | None = None  # the number behind the last batch that was given up

    def may_send(self, batch: ProducerBatch) -> bool:
        """Whether a batch may be sent now: again, only the oldest of all, so that there is one at a time."""
        if batch.sequence >= 0:
            return batch is self.sent[0]
        return self.unresolved is None

    def number(self, batch: ProducerBatch, producer_id: int) -> None:
        """Give a batch the next numbers."""
        batch.producer, batch.epoch, batch.sequence = producer_id, self.epoch, self.next
        self.next += len(batch.copies)
        self.sent.append(batch)

    def written(self, batch: ProducerBatch) -> None:
        """The leader has the batch, whether anybody still waits for it or not."""
        if batch.epoch == self.epoch:
            self.acked = max(self.acked, batch.sequence + len(batch.copies))
        if self.unresolved is None and self.sent and self.sent[0] is batch:
            del self.sent[0]  # as a rule
        else:
            self._over(batch)

    def given_up(self, batch: ProducerBatch) -> None:
        """The batch may be in the log or not."""
        if batch.epoch == self.epoch:
            self.unresolved = max(self.unresolved or 0, batch.sequence + len(batch.copies))
        self._over(batch)

    def _over(self, batch: ProducerBatch) -> None:
        if batch in self.sent:
            self.sent.remove(batch)
        if self.unresolved is not None and not self.sent:
            if self.acked == self.next:
                self.unresolved = None  # what was given up is in the log, or what followed would not be
            else:
                self.begin(self.epoch + 1)

    def out_of_order(self, batch: ProducerBatch) -> bool:
        """K-15: the leader lacks what came before the batch. Says whether it will lack it for ever.

        If that is still to come the batch waits for its turn. If it never will (the one before was given up, or the
        leader has lost it), a new epoch begins, and what was sent gets new numbers: none of it is in the log.
        """
        is_next = batch.sequence == self.acked
        if self.unresolved is None and not is_next:
            return False
        if self.unresolved in (None, batch.sequence):
            self.begin(self.epoch + 1)
            waiting, self.sent = self.sent, []
            for other in waiting:
                self.number(other, other.producer)
        return True
