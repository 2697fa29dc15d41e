"""The commented scenario that `msgsim new` writes."""

from __future__ import annotations

import json

_TEMPLATE = """\
# A scenario of msgsim. Run it:       msgsim run {name}.yaml
# Change a value without editing:     msgsim run {name}.yaml --set network.loss=10%
# Quantities have units: 200 ms, 5 s, 1 KiB, 300/s, 10 MB/s, 2%. Plain numbers are seconds, bytes, per second.

title: {title}
# What the reader shall be able to answer:
question: What does each delivery guarantee cost when the network loses messages?

# When it ends: arrivals stop after a duration (or so many `messages` per producer), then everything drains.
duration: 20 s
seed: 1            # the same seed gives the same run, to the last message
replications: 3    # runs with other random numbers; the intervals of the figures come from them

# The delivery guarantee that the settings below are filled up to. What is written explicitly wins.
guarantee: at-least-once

# Channels: a messaging system and its settings.
channels:
  orders:
    system: textbook
    pattern: queue               # each message goes to one consumer; with topic, to every service

# Producers: who sends, how often, and what they do when no confirmation comes.
producers:
  shop:
    channel: orders
    arrivals: 50/s               # Poisson; a steady beat would be {{deterministic: 50/s}}
    size: 1 KiB
    # resend: {{timeout: 100 ms, attempts: 5}}    # none: fire and forget

# Services: who receives. Each has `consumers` processes: the hosts billing.1, billing.2 ...
services:
  billing:
    channel: orders
    consumers: 2
    service_time: {{exponential: 20 ms}}   # or 20 ms, {{uniform: [5 ms, 35 ms]}}, lognormal, gamma ...
    # idempotence: {{store: transaction}}         # remember what has been done, and skip it

# The network between all hosts; a link between two may differ.
network:
  delay: {{exponential: 1 ms}}
  loss: 1%
  # links:
  #   shop -> orders: {{loss: 5%}}

# What breaks, and when: hosts (shop, orders, billing, billing.1 ...) or links (shop -> orders).
faults:
  - {{crash: billing.1, at: 5 s, lasting: 2 s}}
  # - {{partition: shop <-> orders, at: 10 s, lasting: 1 s}}
  # - {{crash: orders, on: "orders.accept #100", lasting: 1 s}}     # at the hundredth message that it accepts

# What varies: any path and its values. Several paths make a grid.
sweep:
  guarantee: [at-most-once, at-least-once, exactly-once]
  network.loss: [0%, 5%]

# What you expect, and a change under which it must be false: a claim that cannot fail says nothing.
expect:
  - claim: lost_confirmed == 0
    where: guarantee != "at-most-once"
    broken_by: {{channels.orders.storage: memory, faults: [{{crash: orders, at: 10 s, lasting: 1 s}}]}}
    because: A message is confirmed when it is on the disk, and kept until a consumer has processed it.
  - claim: duplicate_effects == 0
    where: guarantee == "exactly-once"
    broken_by: {{services.billing.idempotence: none}}
    because: The consumer remembers, in the transaction of the effect, what it has done.
"""


def template(name: str) -> str:
    """A scenario of that name to start from: it is valid, and explains each of its sections."""
    title = name.replace("-", " ").replace("_", " ").strip().capitalize() or "A scenario"
    file = "".join(c for c in name if c.isprintable()) or "scenario"
    return _TEMPLATE.format(name=file, title=json.dumps(title))
