"""The language of claims, and the verdicts on them."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.claims import (
    ClaimError,
    check,
    check_expression,
    judge,
    needs_other_rows,
    param_names,
    select,
    values,
)

FIGURES = ("published", "lost", "lost_confirmed", "duplicates", "latency_p50", "latency_p99", "cost")


@dataclass(frozen=True)
class Claim:
    statement: str
    where: str | None = None
    refuted: bool = False


def row(params, *replications):
    """A row whose replications have these figures; what is not given is 0."""
    outcomes = [SimpleNamespace(figures=dict.fromkeys(FIGURES, 0) | figures) for figures in replications]
    return SimpleNamespace(params=params, outcomes=outcomes)


def guarantees_by_loss():
    """3 guarantees x 2 losses, 2 replications: at-most-once loses what the network loses."""
    rows = []
    for guarantee in ("at-most-once", "at-least-once", "exactly-once"):
        for loss in (0.0, 0.05):
            lost = int(1000 * loss) if guarantee == "at-most-once" else 0
            again = 0 if guarantee == "at-most-once" else int(800 * loss)
            figures = [
                {
                    "published": 1000,
                    "lost": lost + k,
                    "duplicates": again + k,
                    "latency_p99": 0.1 * (1 + loss),
                }
                for k in (0, 1 if loss else 0)
            ]
            rows.append(row({"guarantee": guarantee, "network.loss": loss}, *figures))
    return rows


@pytest.mark.parametrize(
    "statement",
    [
        "lost == 0",
        "0 <= lost <= 10",
        "lost == 0 and not duplicates > 3 or lost_confirmed != 1",
        "(lost + 2) * 3 - duplicates / 4 < 2 ** 10",
        "abs(lost - duplicates) < 5 and max(lost, 1, 2) == min(3, 4) and round(latency_p99, 3) == 0.1",
        'lost > at("lost", loss=0, guarantee="at-most-once")',
        'smallest("loss", lost > 0 and duplicates == 0) == 0.05',
        "-lost <= +1e3",
        "not (lost == 0)",
        "lost\n== 0",
    ],
)
def test_good_statements_pass(statement):
    check(statement, FIGURES, ("loss", "guarantee"))


@pytest.mark.parametrize(
    "statement, message",
    [
        ("lst == 0", "unknown name 'lst'; did you mean 'lost'?"),
        (
            "zzz == 0",
            "unknown name 'zzz'; known are published, lost, lost_confirmed, duplicates, latency_p50,",
        ),
        (
            "lost = 0",
            "expected a claim such as lost_confirmed == 0, found 'lost = 0'; equality is written ==",
        ),
        ("", "expected a claim such as lost_confirmed == 0, found ''"),
        ("lost ==", "expected a claim such as lost_confirmed == 0, found 'lost =='"),
        ("lost + 1", "expected a comparison such as lost == 0, found 'lost + 1'"),
        ("3", "expected a comparison such as lost == 0, found '3'"),
        ("1 == 1", "expected a claim such as lost_confirmed == 0, found '1 == 1', which names nothing"),
        ("lost in (1, 2)", "expected == != < <= > or >=, found 'lost in (1, 2)'"),
        ("lost == [0]", "expected numbers, names and + - * / **, found '[0]'"),
        ("lost % 2 == 0", "expected numbers, names and + - * / **, found 'lost % 2'"),
        ("(lost == 0) == 1", "expected numbers, names and + - * / **, found 'lost == 0'"),
        ("lost.real == 0", "expected numbers, names and + - * / **, found 'lost.real'"),
        ("lost[0] == 0", "expected numbers, names and + - * / **, found 'lost[0]'"),
        ("(lambda: 1)() == lost", "unknown function 'lambda: 1'; known are abs, min, max, round, at"),
        ("__import__('os') == lost", "unknown function '__import__'; known are abs, min, max, round, at"),
        ("maxx(lost, 1) == 1", "unknown function 'maxx'; did you mean 'max'?"),
        ("abs(lost, 1) == 1", "abs() takes one number, found 'abs(lost, 1)'"),
        ("max(lost) == 1", "max() takes two numbers or more, found 'max(lost)'"),
        ("max(*lost) == 1", "max() takes two numbers or more, found 'max(*lost)'"),
        ("round(x=lost) == 1", "round() takes a number, and decimals if wanted, found 'round(x=lost)'"),
        ("at('lost') == 1", 'expected at("figure", parameter=value), found "at(\'lost\')"'),
        ("at(lost, loss=1) == 1", "expected at(\"figure\", parameter=value), found 'at(lost, loss=1)'"),
        ("at('lots', loss=1) == 1", "unknown figure 'lots'; did you mean 'lost'?"),
        ("at('lost', los=1) == 1", "unknown parameter of the sweep 'los'; did you mean 'loss'?"),
        (
            "at('lost', loss=lost) == 1",
            "at(...) takes parameter=plain value, found \"at('lost', loss=lost)\"",
        ),
        (
            "smallest('los', lost > 0) == 1",
            "unknown parameter of the sweep 'los'; did you mean 'loss'?",
        ),
        ("smallest('loss', lots > 0) == 1", "unknown name 'lots'; did you mean 'lost'?"),
        (
            "smallest(loss, lost > 0) == 1",
            "expected smallest(\"parameter\", lost == 0) with a comparison, found 'smallest(loss, lost > 0)'",
        ),
        ("smallest('loss') == 1", 'expected smallest("parameter", lost == 0) with a comparison'),
        ("at('lost', **{}) == 1", "at(...) takes parameter=plain value, found \"at('lost', **{})\""),
        ("lost == 1 if lost else 2", None),
        ("lost == b'0'", "expected numbers, names and + - * / **, found \"b'0'\""),
        ("lost == 1j", "expected numbers, names and + - * / **, found '1j'"),
        ("(x := 3) == lost", "expected numbers, names and + - * / **, found '(x := 3)'"),
        ("lost == " + "9" * 5000, "expected a claim of at most 1000 characters, found 5008"),
        ("-" * 200 + "lost == 0", "expected a claim such as lost_confirmed == 0, found one nested 60 deep"),
    ],
)
def test_what_is_not_allowed_is_told_in_one_line(statement, message):
    with pytest.raises(ValueError) as caught:
        check(statement, FIGURES, ("loss", "guarantee"))
    assert "\n" not in str(caught.value)
    if message:
        assert str(caught.value).startswith(message)


def test_a_figure_alone_is_no_statement():
    """A name alone may be a yes or no of the sweep; that a figure is neither shows when it is judged."""
    with pytest.raises(ClaimError, match="expected a comparison, found 'lost', which is 0"):
        judge(Claim("lost"), [row({}, {})])


@given(st.text(max_size=40) | st.text(alphabet="lost_=<>!()at\"', +-*/0123.andor", max_size=60))
def test_any_text_is_a_statement_or_one_line(text):
    told = ""
    try:
        check(text, FIGURES)
    except ClaimError as error:
        told = str(error)
    assert len(told.splitlines()) <= 1


def test_a_claim_must_hold_in_every_row_and_every_replication():
    rows = [row({"network.loss": x}, {"lost": 0}, {"lost": 0}) for x in (0.0, 0.05)]
    assert judge(Claim("lost == 0"), rows).holds
    rows[1].outcomes[1].figures["lost"] = 1
    verdict = judge(Claim("lost == 0"), rows)
    assert not verdict.holds
    assert verdict.observed == "lost 0 to 1; false in 1 of 4 runs: loss=0.05, replication 1"


def test_the_verdict_says_what_was_observed():
    rows = guarantees_by_loss()
    assert judge(Claim("lost_confirmed == 0"), rows).observed == "lost_confirmed = 0 in 12 runs"
    verdict = judge(Claim("lost <= duplicates"), rows)
    assert not verdict.holds
    assert verdict.observed == (
        "lost 0 to 51, duplicates 0 to 41; false in 2 of 12 runs: guarantee=at-most-once, loss=0.05"
    )
    single = [row({}, {"lost": 12, "latency_p99": 1234.5678})]
    assert judge(Claim("lost > 3 and latency_p99 > 1"), single).observed == "lost = 12, latency_p99 = 1235"
    assert judge(Claim("lost == 0"), single).observed == "lost = 12: false"


def test_at_most_three_failing_rows_are_named():
    rows = [row({"n": i}, {"lost": i}) for i in range(1, 7)]
    observed = judge(Claim("lost == 0"), rows).observed
    assert observed == "lost 1 to 6; false in 6 of 6 runs: n=1; n=2; n=3; and 3 more rows"


def test_where_selects_rows():
    rows = guarantees_by_loss()
    params = [r.params for r in rows]
    assert select(None, params) == [0, 1, 2, 3, 4, 5]
    assert select('guarantee == "at-most-once"', params) == [0, 1]
    assert select('guarantee != "at-most-once" and network_loss > 0', params) == [3, 5]
    assert select("loss == 0.05", params) == [1, 3, 5]
    assert judge(Claim("lost <= 1", where='not guarantee == "at-most-once"'), rows).holds
    assert not judge(Claim("lost <= 1", where='guarantee == "at-most-once"'), rows).holds


def test_a_number_in_where_need_not_repeat_the_rounding():
    params = [{"network.loss": 7 * 0.01}, {"network.loss": 0.1 + 0.2}]
    assert select("loss == 0.07", params) == [0]
    assert select("loss <= 0.3", params) == [0, 1]
    assert select("loss < 0.3", params) == [0]


def test_where_knows_yes_no_and_nothing():
    params = [{"sequence_numbers": True, "max_length": None}, {"sequence_numbers": False, "max_length": 5}]
    assert select("sequence_numbers", params) == [0]
    assert select("not sequence_numbers", params) == [1]
    assert select("sequence_numbers == true and max_length == null", params) == [0]
    assert select("max_length != null", params) == [1]


@pytest.mark.parametrize(
    "where, message",
    [
        ("loss == 0.5", "where: loss == 0.5 selects no row: loss is 0 or 0.05"),
        ('loss == "5%"', 'where: loss == "5%" selects no row: loss is 0 or 0.05'),
        ("los == 0", "unknown name 'los'; did you mean 'loss'?"),
        ("lost == 0", "unknown name 'lost'; did you mean 'loss'?"),
        ("guarantee < 3", "only numbers have an order, found 'at-most-once' and 3"),
        ('loss == at("loss", guarantee=1)', "unknown parameter of the sweep 'guarantee'; nothing is swept"),
    ],
)
def test_a_where_that_cannot_select_is_an_error(where, message):
    with pytest.raises(ClaimError) as caught:
        judge(Claim("lost == 0", where=where), guarantees_by_loss())
    assert str(caught.value) == message


def test_names_of_parameters():
    paths = ["guarantee", "services.a.prefetch", "services.b.prefetch", "network.links.shop -> orders.loss"]
    assert param_names(paths) == {
        "guarantee": "guarantee",
        "loss": "network.links.shop -> orders.loss",
        "services_a_prefetch": "services.a.prefetch",
        "services_b_prefetch": "services.b.prefetch",
        "network_links_shop_orders_loss": "network.links.shop -> orders.loss",
    }
    assert param_names(["guarantee", "channels.orders.guarantee"])["guarantee"] == "guarantee"


def test_at_reads_another_row_in_the_same_replication():
    rows = [
        row({"g": "a", "network.loss": 0.0}, {"lost": 10}, {"lost": 20}),
        row({"g": "a", "network.loss": 0.05}, {"lost": 11}, {"lost": 21}),
        row({"g": "b", "network.loss": 0.0}, {"lost": 30}, {"lost": 40}),
        row({"g": "b", "network.loss": 0.05}, {"lost": 31}, {"lost": 41}),
    ]
    assert judge(Claim('lost == at("lost", loss=0) + 1', where="loss > 0"), rows).holds
    assert judge(Claim('lost == at("lost", g="b") - 20', where='g == "a"'), rows).holds
    verdict = judge(Claim('lost > at("lost", loss=0)'), rows)  # nothing exceeds itself
    assert not verdict.holds
    assert verdict.observed == (
        "lost 10 to 41, at('lost', loss=0) 10 to 40; false in 4 of 8 runs: g=a, loss=0; g=b, loss=0"
    )


def test_at_a_row_that_is_not_there():
    with pytest.raises(ClaimError) as caught:
        judge(Claim('lost >= at("lost", loss=0.5)'), guarantees_by_loss())
    assert str(caught.value) == (
        "no rows are like this one but for loss=0.5: loss is 0 or 0.05 "
        "(guarantee=at-most-once, loss=0, replication 0)"
    )


def test_of_reads_one_subscription_alone():
    rows = [row({}, {"lost": 5}, {"lost": 7})]
    for outcome in rows[0].outcomes:
        lost = outcome.figures["lost"]
        outcome.by = [
            {"channel": "orders", "subscription": "billing", "lost": lost},
            {"channel": "prices", "subscription": "audit", "lost": 0},
            {"channel": "prices", "subscription": "screen", "lost": 0},
        ]
    assert judge(Claim('of("billing", "lost") == lost and of("audit", "lost") == 0'), rows).holds
    assert judge(Claim('of("orders", "lost") > 6'), rows).observed == (
        "of('orders', 'lost') 5 to 7; false in 1 of 2 runs: the only row, replication 0"
    )
    for statement, message in (
        ('of("audti", "lost") == 0', "no subscriptions are named 'audti'; did you mean 'audit'?"),
        ('of("prices", "lost") == 0', "2 subscriptions are named 'prices'; known are billing, audit, screen"),
        ('of("audit") == 0', 'expected of("subscription", "figure"), found "of(\'audit\')"'),
        ('of("audit", "lots") == 0', "unknown figure 'lots'; did you mean 'lost'?"),
    ):
        with pytest.raises(ClaimError) as caught:
            judge(Claim(statement), rows)
        assert str(caught.value).startswith(message)


def test_only_statements_with_at_look_beyond_their_row():
    assert needs_other_rows('lost > 2 * at("lost", loss=0)')
    assert not needs_other_rows("lost > 2 * duplicates")


def test_a_refuted_claim_holds_if_it_is_false_somewhere():
    rows = guarantees_by_loss()
    verdict = judge(Claim("duplicates == 0", refuted=True), rows)
    assert verdict.holds
    assert verdict.refuted
    assert "false in" in verdict.observed
    assert not judge(Claim("lost_confirmed == 0", refuted=True), rows).holds


def test_a_figure_that_is_null_is_an_error():
    rows = [row({"n": 1}, {}, {"latency_p99": None})]
    for statement in (
        "latency_p99 < 1",
        "lost == 0 or latency_p99 < 1",
        "latency_p99 == null",
        "abs(latency_p99) < 1",
    ):
        with pytest.raises(ClaimError) as caught:
            judge(Claim(statement), rows)
        assert str(caught.value) == "latency_p99 is null: there was nothing to measure (n=1, replication 1)"


@pytest.mark.parametrize(
    "statement, message",
    [
        ("lost / duplicates < 1", "lost / duplicates: division by zero"),
        ("10 ** (published * 1000) > lost", "10 ** (published * 1000): math range error"),
        ("(0 - 8) ** 0.5 > lost", "(0 - 8) ** 0.5: math domain error"),
        ('lost < "3"', "only numbers have an order, found 0 and '3'"),
        ('lost + "3" == 3', "expected a number, found \"'3'\", which is '3'"),
    ],
)
def test_arithmetic_that_fails_is_told(statement, message):
    with pytest.raises(ClaimError) as caught:
        judge(Claim(statement), [row({}, {"published": 1})])
    assert str(caught.value).startswith(message)


def test_numbers_that_differ_by_rounding_are_equal():
    rows = [row({}, {"latency_p50": 0.1 + 0.2, "lost": 3, "published": 10**15, "duplicates": 10**15 + 1})]
    assert judge(Claim("latency_p50 == 0.3 and latency_p50 <= 0.3 and not latency_p50 > 0.3"), rows).holds
    assert judge(Claim("lost ** 2 == 9"), rows).holds
    assert judge(Claim("published != duplicates and published < duplicates"), rows).holds  # counts are exact


# -- expressions, and the smallest value of a parameter


def by_prefetch():
    """3 prefetches x 2 losses, 2 replications: the larger the prefetch, the less is lost; never nothing at 5%."""
    return [
        row({"worker.prefetch": prefetch, "network.loss": loss}, {"lost": lost}, {"lost": 2 * lost})
        for prefetch, base in ((26, 1), (1, 10), (5, 4))
        for loss, lost in ((0.0, base - 1), (0.05, base))
    ]


def test_the_smallest_value_for_which_a_statement_is_true():
    rows = by_prefetch()
    for claim, holds in (
        ('smallest("prefetch", lost < 9) == 5', True),  # 9, 3, 0 and 18, 6, 0
        ('smallest("prefetch", lost < 9) == 26', False),
        ('smallest("worker_prefetch", lost == 0) == 26', True),
    ):
        assert judge(Claim(claim, where="loss == 0"), rows).holds is holds
    assert needs_other_rows('smallest("prefetch", lost == 0) == 5')
    told = judge(Claim('smallest("prefetch", lost < 9) > 5', where="loss == 0"), rows).observed
    assert told.startswith("smallest('prefetch', lost < 9) = 5")


def test_the_statement_within_smallest_may_look_elsewhere():
    claim = 'smallest("prefetch", lost < at("lost", prefetch=1) / 2) == 5'
    assert judge(Claim(claim, where="loss == 0"), by_prefetch()).holds


@pytest.mark.parametrize(
    "claim, message",
    [
        (
            'smallest("prefetch", lost == 0) == 1',
            "lost == 0 is false for every prefetch (26, 1, 5) (prefetch=26, loss=0.05, replication 0)",
        ),
        (
            'smallest("guarantee", lost == 0) == 1',
            "only numbers have an order, found guarantee='at-most-once'",
        ),
    ],
)
def test_where_there_is_no_smallest_that_is_told(claim, message):
    rows = by_prefetch() if "prefetch" in claim else guarantees_by_loss()
    with pytest.raises(ClaimError) as caught:
        judge(Claim(claim, where="loss == 0.05"), rows)
    assert str(caught.value).startswith(message)


def test_a_where_has_no_smallest():
    with pytest.raises(ClaimError, match=r"smallest\(...\) stands in a claim, not in its where|unknown"):
        select('smallest("prefetch", lost == 0) == 1', [{"worker.prefetch": 1}])


def test_an_expression_has_a_value_in_each_replication():
    rows = by_prefetch()
    assert values("1000 * lost + 1", rows, 2) == [9001.0, 18001.0]
    assert values('at("lost", prefetch=26) - lost', rows, 2) == [-9.0, -18.0]
    assert values('smallest("prefetch", lost < 9)', rows, 2) == [5.0, 5.0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("lost == 0", "expected numbers, names and + - * / **, found 'lost == 0'"),
        ("lost and lost", "expected numbers, names and + - * / **, found 'lost and lost'"),
        ("lots", "unknown name 'lots'; did you mean 'lost'?"),
        ("2 * 3", "expected an expression such as 1000 * latency_mean, found '2 * 3', which names nothing"),
        ("", "expected an expression such as 1000 * latency_mean, found ''"),
        ("lost" * 300, "expected an expression of at most 1000 characters, found 1200"),
    ],
)
def test_what_is_no_expression_is_told_in_one_line(text, message):
    with pytest.raises(ClaimError) as caught:
        check_expression(text, FIGURES, ("loss",))
    assert str(caught.value) == message


def test_an_expression_over_nothing_measured_has_no_value():
    with pytest.raises(ClaimError, match="latency_p99 is null"):
        values("1000 * latency_p99", [row({}, {"latency_p99": None})], 0)
