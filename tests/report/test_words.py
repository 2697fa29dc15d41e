"""Values are written as people read them, rows are named by what differs."""

import pytest

from sim.units import BANDWIDTH, RATE, SHARE, SIZE, TIME
from sim.words import (
    FIGURES,
    SHARE_OF,
    compact,
    count,
    digits,
    duration,
    figure_text,
    measures,
    quantity,
    row_label,
    share,
    short_names,
    sweep_axes,
)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (2.5e-7, "0.25 µs"),
        (1.5e-4, "150 µs"),
        (0.001, "1 ms"),
        (0.2, "200 ms"),
        (0.9999, "1,000 ms"),
        (1, "1 s"),
        (60, "1 min"),
        (70, "70 s"),
        (150, "2.5 min"),
        (3600, "1 h"),
        (5400, "90 min"),
        (86400, "24 h"),
    ],
)
def test_times_get_the_unit_in_which_they_are_best_read(seconds, text):
    assert duration(seconds) == text


def test_numbers_never_come_in_exponent_form():
    assert [digits(x) for x in (0, 1.23456e-7, 0.5, 12345.6, 2e9)] == [
        "0",
        "0.000000123",
        "0.5",
        "12,300",
        "2,000,000,000",
    ]
    assert [compact(x) for x in (0, 0.5, 7500, 10_000, 2e5, 3.5e6)] == [
        "0",
        "0.5",
        "7,500",
        "10,000",
        "200k",
        "3.5M",
    ]
    assert [count(x) for x in (0, 1440, 72.4, 1234.5)] == ["0", "1,440", "72.4", "1,234"]
    assert [share(x) for x in (0, 1.5e-6, 0.051, 2)] == ["0%", "0.00015%", "5.1%", "200%"]


def test_a_figure_has_its_unit_and_an_interval_of_two_digits():
    assert figure_text("latency_p99", 0.01234) == "12.3 ms"
    assert figure_text("latency_p99", 0.01234, 0.000432) == "12.34 ± 0.43 ms"
    assert figure_text("lost", 1204.0, 31.7) == "1,204 ± 32"
    assert figure_text("utilisation", 0.8123, 0.0123) == "81.2 ± 1.2%"
    assert figure_text("goodput", 99.96) == "100/s"
    assert figure_text("published", 6000) == "6,000"
    assert figure_text("latency_p99", None, None) == "–"
    assert figure_text("lost", 0, 0.0) == "0"


@pytest.mark.parametrize(
    "path, found",
    [
        ("network.loss", SHARE),
        ("network.links.shop -> orders.loss", SHARE),
        ("channels.orders.ack_timeout", TIME),
        ("producers.shop.resend.timeout", TIME),
        ("services.billing.service_time", TIME),
        ("services.billing.service_time.lognormal.mean", TIME),
        ("services.billing.service_time.lognormal.cv", None),
        ("producers.shop.arrivals", RATE),
        ("producers.shop.arrivals.poisson.rate", RATE),
        ("producers.shop.size", SIZE),
        ("services.billing.idempotence.size", None),
        ("network.bandwidth", BANDWIDTH),
        ("services.billing.consumers", None),
        ("faults.0.lasting", TIME),
        ("duration", TIME),
        ("never.heard.of", None),
    ],
)
def test_what_a_path_measures_is_read_from_the_settings_annotations(path, found):
    assert measures(path) is found


def test_settings_are_written_in_the_units_of_a_scenario():
    assert quantity(0.05, SHARE) == "5%"
    assert quantity(100, RATE) == "100/s"
    assert quantity(2048, SIZE) == "2 KiB"
    assert quantity(1000, SIZE) == "1 kB"
    assert quantity(1e7, BANDWIDTH) == "10 MB/s"
    assert quantity(4, None) == "4"


def test_rows_are_named_by_what_differs_between_them():
    params = [
        {"guarantee": guarantee, "network.loss": loss, "channels.orders.pattern": "queue"}
        for guarantee in ("at-most-once", "at-least-once")
        for loss in (0.0, 0.05)
    ]
    axes = sweep_axes(params)
    assert [axis.path for axis in axes] == ["guarantee", "network.loss"]
    assert [axis.is_numeric for axis in axes] == [False, True]
    assert row_label(axes, params[1]) == "at-most-once, loss 5%"
    assert sweep_axes(params[:1]) == sweep_axes([]) == []


def test_paths_that_vary_together_are_one_axis():
    params = [
        {"services.billing.consumers": consumers, "services.billing.prefetch": prefetch, "network.loss": loss}
        for consumers, prefetch in ((1, 10), (2, 5))
        for loss in (0.0, 0.5)
    ]
    axes = sweep_axes(params)
    assert [axis.path for axis in axes] == ["services.billing.consumers", "network.loss"]
    assert row_label(axes, params[2]) == "consumers 2, prefetch 5, loss 0%"


def test_values_that_are_no_numbers_have_words():
    axes = sweep_axes([{"producers.shop.sequence_numbers": value} for value in (True, False)])
    assert not axes[0].is_numeric
    assert [axes[0].label(value) for value in axes[0].values] == [
        "sequence numbers on",
        "sequence numbers off",
    ]
    axes = sweep_axes([{"services.billing.prefetch": value} for value in (1, None)])
    assert not axes[0].is_numeric
    assert axes[0].label(None) == "prefetch none"


def test_a_name_is_as_long_as_it_takes_to_tell_paths_apart():
    names = short_names(["services.billing.consumers", "services.audit.consumers", "network.loss"])
    assert list(names.values()) == ["billing consumers", "audit consumers", "loss"]


def test_shares_are_of_figures_that_exist():
    assert set(SHARE_OF) | set(SHARE_OF.values()) <= set(FIGURES)
