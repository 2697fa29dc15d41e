"""Whatever is wrong with a file is told in one line: where, what was expected and found, what may be meant."""
# ruff: noqa: E501 -- a message stands in one line, as it is told

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sim.scenario import Scenario, ScenarioError, load

pytestmark = pytest.mark.usefixtures("fake_systems")

VALID = """\
duration: 10 s
channels:
  orders: {system: textbook}
producers:
  shop: {arrivals: 100/s}
services:
  billing:
    service_time: {exponential: 8 ms}
    consumers: 2
"""
TOP = (
    "channels, producers, services, network, faults, duration, warmup, drain_limit, messages, guarantee, "
    "title, question, seed, replications, sweep, expect, plots, published"
)
NOTHING = "expected a scenario (a mapping with channels and producers), found"
TIME = "expected a time such as 200 ms, found"
TIME_UNITS = "(units: ns, us, µs, ms, s, min, h, d)"
LAW = "s.yaml:8: services.billing.service_time"


def time(law: str) -> str:
    """The valid scenario with another service time, in line 8."""
    return VALID.replace("{exponential: 8 ms}", law)


def shop(settings: str) -> str:
    """The valid scenario with other settings of the producer, in line 5."""
    return VALID.replace("arrivals: 100/s", settings)


def orders(settings: str) -> str:
    """The valid scenario with other settings of the channel, in line 3."""
    return VALID.replace("system: textbook", settings)


def more(text: str) -> str:
    """The valid scenario with more lines, from line 10 on."""
    return VALID + text


# fmt: off
NOT_A_SCENARIO = [
    ("", f"s.yaml: {NOTHING} nothing in it"),
    ("# only a comment\n", f"s.yaml: {NOTHING} nothing in it"),
    ("- 1\n", f"s.yaml: {NOTHING} a list"),
    ("hello\n", f"s.yaml: {NOTHING} 'hello'"),
    ("a: [1, 2\n", "s.yaml:1: not YAML: expected ',' or ']', but got '<stream end>'"),
    ("a:\n\tb: 1\n", "s.yaml:2: not YAML: found character '\\t' that cannot start any token"),
    ("title: a: b\n", "s.yaml:1: not YAML: mapping values are not allowed here"),
    (more("title: *no\n"), "s.yaml:10: not YAML: found undefined alias 'no'"),
    (
        more("---\na: 1\n"),
        "s.yaml:10: not YAML: expected a single document in the stream, but found another document",
    ),
    (b"a: 1\nb: \x00\n", "s.yaml:2: not YAML: the character '\\x00' is not allowed"),
    (b"\xff\xfe\x00", "s.yaml: expected a text file in UTF-8, found other bytes"),
    (more("duration: 3 s\n"), "s.yaml:10: duration: written twice; the first time in line 1"),
    (more("    consumers: 3\n"), "s.yaml:10: services.billing.consumers: written twice; the first time in line 9"),
    (more("title: !x y\n"), "s.yaml:10: title: expected plain YAML, found the tag !x"),
    (
        more("seed: !!python/object:os.system 3\n"),
        "s.yaml:10: seed: expected plain YAML, found the tag tag:yaml.org,2002:python/object:os.system",
    ),
    (more("? [a, b]\n: 1\n"), "s.yaml:10: expected a name before the colon, found a list or a mapping"),
    (more("faults: &a [*a]\n"), "s.yaml:10: too deep for a scenario (aliases of aliases?)"),
    ("[" * 700, "s.yaml: not a scenario: nested too deeply"),
]

FIELDS = [
    (more("chanels: {}\n"), "s.yaml:10: chanels: unknown field; did you mean 'channels'?"),
    (more("xyzzy: 1\n"), f"s.yaml:10: xyzzy: unknown field; choose from {TOP}"),
    (more('"a\\nb": 1\n'), f"s.yaml:10: a\\nb: unknown field; choose from {TOP}"),
    (more("    prefech: 3\n"), "s.yaml:10: services.billing.prefech: unknown field; did you mean 'prefetch'?"),
    (VALID.replace("consumers", "consumer"), "s.yaml:9: services.billing.consumer: unknown field; did you mean 'consumers'?"),
    (shop("resend: {timeot: 1 s}"), "s.yaml:5: producers.shop.resend.timeot: unknown field; did you mean 'timeout'?"),
    (more("    idempotence: {stor: memory}\n"), "s.yaml:10: services.billing.idempotence.stor: unknown field; did you mean 'store'?"),
    (more("    idempotence: memory\n"), "s.yaml:10: services.billing.idempotence: expected a mapping (store, size, ttl), found 'memory'"),
    (VALID.replace("consumers: 2", "consumers: 0"), "s.yaml:9: services.billing.consumers: expected a whole number >= 1, found 0"),
    (VALID.replace("consumers: 2", "consumers: 2.0"), "s.yaml:9: services.billing.consumers: expected a whole number >= 1, found 2.0"),
    (VALID.replace("consumers: 2", "consumers: true"), "s.yaml:9: services.billing.consumers: expected a whole number >= 1, found true"),
    (VALID.replace("consumers: 2", "consumers:"), "s.yaml:9: services.billing.consumers: expected a whole number >= 1, found nothing"),
    (VALID.replace("consumers: 2", f"consumers: {10**20}"), f"s.yaml:9: services.billing.consumers: expected a whole number >= 1 and < 2^63, found {10**20}"),
    (more("    effect: yes\n"), "s.yaml:10: services.billing.effect: expected true or false, found 'yes'"),
    (more("    settle: befor\n"), "s.yaml:10: services.billing.settle: expected one of after, before, found 'befor'; did you mean 'before'?"),
    (more("    filter: 3\n"), "s.yaml:10: services.billing.filter: expected a text, found 3; put it in quotes"),
    (more("    failures: {poison: 2}\n"), "s.yaml:10: services.billing.failures.poison: expected a share from 0 to 1 such as 2%, found 2"),
    (more("seed: -1\n"), "s.yaml:10: seed: expected a whole number >= 0, found -1"),
    (more("replications: 0\n"), "s.yaml:10: replications: expected a whole number >= 1, found 0"),
    (more("title: 5\n"), "s.yaml:10: title: expected a text, found 5; put it in quotes"),
    (more("plots: cdf\n"), "s.yaml:10: plots: expected a list, found 'cdf'"),
    (more("plots: [cdf, tial]\n"), "s.yaml:10: plots.1: expected the name of a plot, found 'tial'; did you mean 'tail'?"),
]

QUANTITIES = [
    (VALID.replace("10 s", "-10 s"), "s.yaml:1: duration: expected a time > 0 such as 200 ms, found '-10 s'"),
    (VALID.replace("10 s", "0 s"), "s.yaml:1: duration: expected a time > 0 such as 200 ms, found '0 s'"),
    (VALID.replace("10 s", ".nan"), f"s.yaml:1: duration: {TIME} nan"),
    (VALID.replace("10 s", ".inf"), f"s.yaml:1: duration: {TIME} inf"),
    (more("drain_limit: -1 s\n"), "s.yaml:10: drain_limit: expected a time >= 0 such as 200 ms, found '-1 s'"),
    (time("8 msec"), f"{LAW}: {TIME} '8 msec' {TIME_UNITS}"),
    (time("8 KiB"), f"{LAW}: {TIME} '8 KiB' (a size)"),
    (time('"8"'), f"{LAW}: {TIME} '8'; a number in quotes needs a unit"),
    (time("x" * 200), f"{LAW}: {TIME} '{'x' * 35} ...'"),
    (time("true"), f"{LAW}: {TIME} true"),
    (shop("arrivals: 100 s"), "s.yaml:5: producers.shop.arrivals: expected a rate such as 300/s, found '100 s' (a time)"),
    (shop("arrivals: 0/s"), "s.yaml:5: producers.shop.arrivals: expected a rate > 0 such as 300/s, found '0/s'"),
    (shop("size: 2%"), "s.yaml:5: producers.shop.size: expected a size such as 1 KiB, found '2%' (a share from 0 to 1)"),
    (orders("memory: 1.5 B"), "s.yaml:3: channels.orders.memory: expected a whole number of bytes such as 1 KiB, found '1.5 B'"),
    (more("network: {loss: 200 %}\n"), "s.yaml:10: network.loss: expected a share from 0 to 1 such as 2%, found '200 %'"),
    (
        more("network: {bandwidth: 10 Mb/s}\n"),
        "s.yaml:10: network.bandwidth: expected a bandwidth such as 10 MB/s, found '10 Mb/s' "
        "(units: B/s, kB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s, bit/s, kbit/s, Mbit/s, Gbit/s)",
    ),
    (more("network: {bursts: {every: 0 s}}\n"), "s.yaml:10: network.bursts.every: expected a time > 0 such as 200 ms, found '0 s'"),
    (orders("flush_interval: 0"), "s.yaml:3: channels.orders.flush_interval: expected a time > 0 such as 200 ms, found 0"),
]

LAWS = [
    (time("{exponetial: 8 ms}"), f"{LAW}: expected a distribution of times, found 'exponetial'; did you mean 'exponential'?"),
    (time("{a: 1, b: 2}"), f"{LAW}: expected a distribution of times such as 200 ms or {{exponential: 200 ms}}, found a mapping of 2 names"),
    (time("{exponential: 8 xs}"), f"{LAW}.exponential: {TIME} '8 xs' {TIME_UNITS}"),
    (time("{exponential: 0 ms}"), f"{LAW}.exponential: mean must be a number > 0, found 0.0"),
    (time("{uniform: [3 ms, 1 ms]}"), f"{LAW}.uniform: high must be >= low, found low 0.003 and high 0.001"),
    (time("{uniform: [3 ms]}"), f"{LAW}.uniform: expected a mapping with low and high, found a list"),
    (time("{normal: {mean: 3 ms}}"), f"{LAW}.normal: 'sd' is missing"),
    (time("{gamma: {mean: 3 ms, sd: 2}}"), f"{LAW}.gamma.sd: unknown field; choose from mean, cv"),
    (time("{lognormal: {mean: 3 ms, p99: 1 s}}"), f"{LAW}.lognormal: expected either mean and cv, or median and p99, found mean and p99"),
    (time("{lognormal: {median: 1.0e-300, p99: 1.0e+300}}"), f"{LAW}.lognormal: mean must be a number > 0, found inf"),
    (time("{mixture: [[0.9, 1 ms], [0.1]]}"), f"{LAW}.mixture.1: expected a pair such as [0.9, 10 ms], found a list"),
    (time("{mixture: [[0.9, 1 ms], [-1, 2 ms]]}"), f"{LAW}.mixture.1.0: expected a number > 0, found -1"),
    (time("{mixture: [[0.9, 1 ms], [1, {exponential: 2%}]]}"), f"{LAW}.mixture.1.1.exponential: {TIME} '2%' (a share from 0 to 1)"),
    (time("{empirical: []}"), f"{LAW}.empirical: values must hold at least one number, found none"),
    (time("{empirical: {csv: no.csv, column: t}}"), f"{LAW}.empirical: no.csv: cannot be read (No such file or directory)"),
    (time("{empirical: {csv: no.csv}}"), f"{LAW}.empirical: expected either values, or csv and column, found csv"),
    (shop("arrivals: {poison: 100/s}"), "s.yaml:5: producers.shop.arrivals: expected arrivals, found 'poison'; did you mean 'poisson'?"),
    (shop("arrivals: {piecewise: [[0 s, 1/s], [0 s, 2/s]]}"), "s.yaml:5: producers.shop.arrivals.piecewise: starts must increase, found [0.0, 0.0]"),
    (shop("arrivals: {trace: [2 s, 1 s]}"), "s.yaml:5: producers.shop.arrivals.trace: times must not decrease, found 1.0 after 2.0"),
    (shop("arrivals: {closed_loop: {window: 0}}"), "s.yaml:5: producers.shop.arrivals.closed_loop.window: expected a whole number >= 1, found 0"),
    (
        shop("arrivals: {closed_loop: {window: 3}}"),
        "s.yaml:5: producers.shop.arrivals: a closed loop waits for acks, so it needs resend, such as resend: {}; found none",
    ),
    (
        shop("arrivals: 100/s, window: 3"),
        "s.yaml:5: producers.shop.window: a window counts unacked messages, so it needs resend, such as resend: {}; found none",
    ),
    (
        shop("arrivals: {batches: {arrivals: {closed_loop: 3}, size: 2}}"),
        "s.yaml:5: producers.shop.arrivals.batches: arrivals must be an open arrival process, "
        "found ClosedLoop(window=3, think=None)",
    ),
]

REFERENCES = [
    ("duration: 1 s\nproducers:\n  shop:\n", "s.yaml:1: expected at least one channel by name, found nothing"),
    ("duration: 1 s\nchannels: [a]\nproducers:\n  shop:\n", "s.yaml:2: channels: expected at least one channel by name, found a list"),
    ("duration: 1 s\nchannels:\n  orders:\n", "s.yaml:1: expected at least one producer by name, found nothing"),
    (VALID.replace("duration: 10 s\n", ""), "s.yaml:1: expected a duration or a number of messages, found neither"),
    (more("messages: 5\n"), "s.yaml:10: messages: expected either a duration or a number of messages, found both"),
    (more("warmup: 20 s\n"), "s.yaml:10: warmup: expected less than the duration, 10 s, found 20 s"),
    (orders("system: texbook"), "s.yaml:3: channels.orders.system: expected the name of a system, found 'texbook'; did you mean 'textbook'?"),
    (orders("system: [1]"), "s.yaml:3: channels.orders.system: expected the name of a system, found a list; choose from textbook, pigeon"),
    (shop("channel: order"), "s.yaml:5: producers.shop.channel: expected the name of a channel, found 'order'; did you mean 'orders'?"),
    (VALID.replace("  orders: {system: textbook}", "  a: {}\n  b: {}"), "s.yaml:6: producers.shop: 'channel' is missing; choose from a, b (and 1 more)"),
    (VALID.replace("shop: {arrivals: 100/s}", "shop: 100/s"), "s.yaml:5: producers.shop: expected a mapping of settings, found '100/s'"),
    (VALID.replace("  shop:", "  my shop:"), "s.yaml:5: producers.my shop: expected a name of letters, digits, _ and - that starts with a letter"),
    (VALID.replace("  billing:", "  orders:"), "s.yaml:7: services.orders: the name is taken by channels.orders; hosts need names of their own"),
    (more("  audit:\n"), "s.yaml:3: channels.orders: a queue has one service"),
    (more("guarantee: at-lest-once\n"), "s.yaml:10: guarantee: textbook does not offer 'at-lest-once'; did you mean 'at-least-once'?"),
    (orders("system: pigeon, guarantee: exactly-once"), "s.yaml:3: channels.orders.guarantee: pigeon does not offer 'exactly-once'; it offers at-most-once"),
    (more("    publishes: {channel: bills}\n"), "s.yaml:10: services.billing.publishes.channel: expected the name of a channel, found 'bills'; choose from orders"),
    (more("    publishes: {}\n"), "s.yaml:10: services.billing.publishes: messages would go round for ever: billing"),
    (shop("keys: {}"), "s.yaml:5: producers.shop.keys: expected either values or a number of keys"),
    (shop("keys: {values: [a, b], weights: [1]}"), "s.yaml:5: producers.shop.keys: expected a weight for each of 2 values, found 1"),
    (shop("keys: {values: [a, 1]}"), "s.yaml:5: producers.shop.keys.values.1: expected a text, found 1; put it in quotes"),
    (shop("keys: {values: [a], skew: 1}"), "s.yaml:5: producers.shop.keys: skew goes with number: the Zipf exponent over that many keys"),
    (more("network:\n  delay: 1 ms\n  los: 2%\n"), "s.yaml:12: network.los: unknown field; did you mean 'loss'?"),
    (more("network: 5\n"), "s.yaml:10: network: expected a mapping (delay, loss, duplicate, bandwidth ...), found 5"),
    (more("network:\n  links:\n    shop -> order: {loss: 5%}\n"), "s.yaml:12: network.links.shop -> order: expected a host after the arrow, found 'order'; did you mean 'orders'?"),
    (more("network:\n  links:\n    shop: {loss: 5%}\n"), 's.yaml:12: network.links.shop: expected two ends such as "shop -> orders" or "shop <-> orders", found \'shop\''),
    (more("network:\n  links:\n    shop -> orders: {los: 5%}\n"), "s.yaml:12: network.links.shop -> orders.los: unknown field; did you mean 'loss'?"),
]

FAULTS = [
    ("{crash: orders}", "s.yaml:10: faults: expected a list of faults, found a mapping"),
    ("[{crash: billing.3, at: 1 s}]", "s.yaml:10: faults.0.crash: expected a host, found 'billing.3'; did you mean 'billing.2'?"),
    ("[{crash: shop -> orders, at: 1 s}]", "s.yaml:10: faults.0.crash: crash strikes a host, not a link; found 'shop -> orders'"),
    ("[{partition: shop -> ordrs, at: 1 s}]", "s.yaml:10: faults.0.partition: expected a host after the arrow, found 'ordrs'; did you mean 'orders'?"),
    ("[{crsh: orders, at: 1 s}]", "s.yaml:10: faults.0: expected one kind of fault such as crash, found none; did you mean 'crash'?"),
    ("[{crash: orders, pause: shop, at: 1 s}]", "s.yaml:10: faults.0: expected one kind of fault such as crash, found crash and pause"),
    ("[{crash: 5, at: 1 s}]", "s.yaml:10: faults.0.crash: expected a text, found 5; put it in quotes"),
    ("[orders]", "s.yaml:10: faults.0: expected a fault such as {crash: orders, at: 10 s}, found 'orders'"),
    ("[{crash: orders, at: soon}]", f"s.yaml:10: faults.0.at: {TIME} 'soon'"),
    ("[{crash: orders, at: 1 s, lasing: 2 s}]", "s.yaml:10: faults.0.lasing: unknown field; did you mean 'lasting'?"),
    ("[{crash: orders}]", "s.yaml:10: faults.0: expected one of at (or every), mtbf and on to say when it strikes, found none"),
    ("[{crash: orders, at: 1 s, mtbf: 3 s, mttr: 1 s}]", "s.yaml:10: faults.0: expected one of at (or every), mtbf and on to say when it strikes, found at and mtbf"),
    ("[{crash: orders, mtbf: 3 s}]", "s.yaml:10: faults.0: mtbf and mttr go together: mean time up and mean time down"),
    ("[{crash: orders, every: 1 s}]", "s.yaml:10: faults.0: a fault that comes again needs a lasting shorter than every"),
    ("[{crash: orders, at: 1 s, factor: 3}]", "s.yaml:10: faults.0: factor is for slow and slow_link; crash has none"),
    ("[{clock_skew: orders, at: 1 s}]", "s.yaml:10: faults.0: clock_skew needs a skew or a drift"),
    ('[{crash: orders, on: "orders.acept #3"}]', "s.yaml:10: faults.0.on: textbook has no event 'acept'; did you mean 'accept'?"),
    ('[{crash: orders, on: "order.accept #3"}]', "s.yaml:10: faults.0.on: expected an event of a channel, found 'order'; did you mean 'orders'?"),
    (
        "\n  - crash: orders\n    on: orders.accept #3",
        's.yaml:12: faults.0.on: expected an event and its number such as "orders.accept #3" '
        "(in quotes: a bare # starts a comment), found 'orders.accept'",
    ),
]

SWEEPS = [
    ("\n  services.biling.consumers: [1, 2]", "s.yaml:11: sweep.services.biling.consumers: unknown path; did you mean 'services.billing.consumers'?"),
    ("\n  services.billing.idempotence.age: [1 s]", "s.yaml:11: sweep.services.billing.idempotence.age: unknown path; services.billing.idempotence has store, size, ttl"),
    ("\n  network.loss: [0%, 200%]", "s.yaml:11: network.loss: expected a share from 0 to 1 such as 2%, found '200%'"),
    ("\n  network.loss: 5%", "s.yaml:11: sweep.network.loss: expected a list of values, or a mapping of labels to values, found '5%'"),
    ("\n  network.loss: []", "s.yaml:11: sweep.network.loss: expected a list of values, or a mapping of labels to values, found nothing"),
    ("\n  network.loss: [5%, 0.05]", "s.yaml:11: sweep.network.loss: expected different values, found 0.05 twice"),
    (" [network.loss]", "s.yaml:10: sweep: expected a mapping of paths to lists of values, found a list"),
    ("\n  zip: {network.loss: [0%, 1%], services.billing.consumers: [1]}", "s.yaml:11: sweep.zip: expected equally long lists, found 2 of network.loss, 1 of services.billing.consumers"),
    ("\n  zip: {network.loss: [1%, 1%], services.billing.consumers: [1, 1]}", "s.yaml:11: sweep.zip: expected different rows, found 0.01, 1 twice"),
    ("\n  zip: []", "s.yaml:11: sweep.zip: expected a mapping of paths to equally long lists, found nothing"),
    ("\n  seed: [1, 2]", "s.yaml:11: sweep.seed: cannot be swept; it is one and the same for all points"),
    ("\n  network.loss: [0%]\n  zip: {network.loss: [1%]}", "s.yaml:12: sweep.zip.network.loss: swept twice"),
    ("\n  network.loss: [0%]\n  network: [{}]", "s.yaml:12: sweep.network: would overwrite the sweep over network.loss; write it before that"),
    ("\n  services.billing.service_time:\n    fast: 1 ms\n    slow: {exponental: 3 ms}", "s.yaml:13: services.billing.service_time: expected a distribution of times, found 'exponental'; did you mean 'exponential'?"),
    ("\n  channels.orders.max_length: [1, 2]\n  warmup: [0 s, 20 s]", "s.yaml:12: warmup: expected less than the duration, 10 s, found 20 s"),
    ("\n  channels.orders.system: [textbook, pigeon]\n  channels.orders.storage: [disk]", "s.yaml:12: channels.orders.storage: unknown field; choose from flock"),
    ("".join(f"\n  services.billing.{f}: {list(range(1, 102))}" for f in ("slots", "consumers")), "s.yaml:10: sweep: expected at most 10,000 points, found 10,201"),
]

CLAIMS = [
    (" lost == 0", "s.yaml:10: expect: expected a list of claims, found 'lost == 0'"),
    ("\n  - lost == 0", "s.yaml:11: expect.0: expected a mapping (claim, where, broken_by, refuted ...), found 'lost == 0'"),
    ("\n  - {claims: lost == 0}", "s.yaml:11: expect.0.claims: unknown field; did you mean 'claim'?"),
    ("\n  - {because: why}", "s.yaml:11: expect.0: 'claim' is missing"),
    ("\n  - claim: lost_confimed == 0", "s.yaml:11: expect.0.claim: unknown name 'lost_confimed'; did you mean 'lost_confirmed'?"),
    ("\n  - claim: lost = 0", "s.yaml:11: expect.0.claim: expected a claim such as lost_confirmed == 0, found 'lost = 0'; equality is written =="),
    ("\n  - claim: lost == 0\n    where: loss == 0", "s.yaml:12: expect.0.where: unknown name 'loss'; nothing is swept"),
    ("\n  - claim: lost == 0\n    refuted: maybe", "s.yaml:12: expect.0.refuted: expected true or false, found 'maybe'"),
    ("\n  - claim: lost == 0\n    broken_by: {channels.order.storage: memory}", "s.yaml:12: expect.0.broken_by.channels.order.storage: unknown path; did you mean 'channels.orders.storage'?"),
    ("\n  - claim: lost == 0\n    broken_by:\n      channels.orders.storage: memry", "s.yaml:13: channels.orders.storage: expected one of memory, disk, found 'memry'; did you mean 'memory'?"),
]

# fmt: on
CASES = [
    *NOT_A_SCENARIO,
    *FIELDS,
    *QUANTITIES,
    *LAWS,
    *REFERENCES,
    *((more(f"faults: {text}\n"), message) for text, message in FAULTS),
    *((more(f"sweep:{text}\n"), message) for text, message in SWEEPS),
    *((more(f"expect:{text}\n"), message) for text, message in CLAIMS),
]


def test_the_file_the_cases_change_is_valid(loaded: Callable[[str], Scenario]) -> None:
    assert len(loaded(VALID).points()) == 1


@pytest.mark.parametrize(
    "text, message", CASES, ids=[message.partition(": ")[2][:60] for _, message in CASES]
)
def test_message(loaded: Callable[[str | bytes], Scenario], text: str | bytes, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loaded(text)
    assert str(caught.value) == message


def test_of_several_mistakes_the_first_in_the_file_is_told(loaded: Callable[[str], Scenario]) -> None:
    text = more("faults: [{crash: moon, at: 1 s}]\nnetwork: {loss: 7}\n").replace("8 ms", "8 xs")
    with pytest.raises(ScenarioError) as caught:
        loaded(text)
    assert str(caught.value) == f"{LAW}.exponential: {TIME} '8 xs' {TIME_UNITS} (and 2 more)"


def test_a_name_that_is_missing_because_it_is_misspelt_is_one_mistake(
    loaded: Callable[[str], Scenario],
) -> None:
    with pytest.raises(ScenarioError) as caught:
        loaded(time("{normal: {meen: 3 ms, sd: 1 ms}}"))
    assert str(caught.value) == f"{LAW}.normal.meen: unknown field; did you mean 'mean'?"


def test_of_a_combination_that_cannot_be_the_point_is_told(loaded: Callable[[str], Scenario]) -> None:
    text = orders("pattern: topic") + "  audit:\nsweep:\n  channels.orders.pattern: [topic, queue]\n"
    with pytest.raises(ScenarioError) as caught:
        loaded(text)
    expected = "s.yaml:3: channels.orders: a queue has one service (at channels.orders.pattern = queue)"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        (Path("missing"), "missing: cannot be read: No such file or directory"),
        ("folder.yaml", "folder.yaml: cannot be read: Is a directory"),
        ("nul\0.yaml", "nul\\x00.yaml: cannot be read: embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.yaml").mkdir()
    with pytest.raises(ScenarioError) as caught:
        load(name)
    assert str(caught.value) == message


def test_a_csv_file_with_something_else_in_it(loaded: Callable[[str], Scenario], tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("seconds,n\n0.01,3\nsoon,4\n")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    for file, column, message in (
        ("times.csv", "second", f"{LAW}.empirical: times.csv: no column 'second'; did you mean 'seconds'?"),
        ("times.csv", "seconds", f"{LAW}.empirical: times.csv, line 3: expected a number >= 0, found 'soon'"),
        (
            "picture.csv",
            "t",
            f"{LAW}.empirical: picture.csv: expected a CSV file in UTF-8, found something else",
        ),
    ):
        with pytest.raises(ScenarioError) as caught:
            loaded(time(f"{{empirical: {{csv: {file}, column: {column}}}}}"))
        assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
