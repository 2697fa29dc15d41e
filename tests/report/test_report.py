"""The report is one valid, self-contained page that holds every part."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from sim.plots import draw
from sim.report import write_report
from sim.report.content import (
    answer,
    causes_table,
    common_settings,
    differing_settings,
    expansions_table,
    flat,
    setting_text,
)
from sim.words import row_label, sweep_axes
from tests.report import fakes

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.headings, self.resources, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute twice in <{tag}>"
        self.tags.append((tag, attributes))
        self.resources += [
            attributes[name] for name in ("src", "href", "srcset", "data") if name in attributes
        ]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.words.append(data)
        if self.stack and re.fullmatch(r"h[1-6]", self.stack[-1]):
            self.headings.append((int(self.stack[-1][1]), data.strip()))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def report(result, folder, names=()):
    text = write_report(result, folder, draw(result, folder, list(names))).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def flagship(tmp_path_factory):
    return report(fakes.guarantees_by_loss(), tmp_path_factory.mktemp("report"), ["guarantees", "tail"])


def test_it_holds_every_part_in_order(flagship):
    _, page = flagship
    assert [level for level, _ in page.headings] == [1] + [2] * (len(page.headings) - 1)
    assert [text for _, text in page.headings] == [
        "Delivery guarantees under loss",
        "In one line",
        "Claims",
        "Figures",
        "Pictures",
        "Causes",
        "Settings",
        "Run it again",
    ]
    for part in (
        "What does each guarantee cost?",
        "✓ holds",
        "✓ refuted, as expected",
        "lost_confirmed == 0",
        'guarantee == "at-least-once"',
        "a resend covers every loss",
        "72 to 1,440",
        "at-most-once, loss 5%",
        "1,440 ± 115",
        "resent_after_lost_ack",
        "T-07",
        "services.billing.settle",
        "channels.orders.settings.ack_timeout",
        "msgsim run fake.yaml --seed 7 --replications 5",
        "title: Delivery guarantees under loss",
        "seed: 7",
        "1 pair in 100 is slower",
    ):
        assert part in page.text, part


@pytest.mark.parametrize("make", [fakes.guarantees_by_loss, fakes.silent, fakes.extreme, fakes.numeric_sweep])
def test_it_needs_nothing_but_itself(make, tmp_path):
    text, page = report(make(), tmp_path, ["cdf"])
    assert page.resources and all(source.startswith("data:image/png;base64,") for source in page.resources)
    assert not re.search(r"https?://|<script|@import|url\(|\son\w+=", text, re.IGNORECASE)
    assert not page.of("link")


def test_it_is_a_page_of_its_own(flagship):
    text, page = flagship
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert page.of("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in page.of("meta")
    assert any(meta.get("name") == "viewport" for meta in page.of("meta"))
    assert page.text.startswith("Delivery guarantees under loss")


def test_tables_have_captions_and_headers_and_pictures_have_words(flagship):
    text, page = flagship
    tables = re.findall(r"<table.*?</table>", text, re.DOTALL)
    assert len(tables) == len(page.of("table")) >= 6
    assert all("<caption>" in table and 'scope="col"' in table and 'scope="row"' in table for table in tables)
    for table in tables:
        widths = {len(re.findall(r"<t[hd]\b", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1
    assert len(page.of("img")) == 2
    for image in page.of("img"):
        assert "at-least-once, loss 5%" in image["alt"]
        assert int(image["width"]) > 0 and int(image["height"]) > 0
    assert page.tags.count(("details", {})) + page.tags.count(("details", {"open": None})) >= 3


def test_what_others_wrote_is_escaped(tmp_path):
    result = fakes.guarantees_by_loss()
    evil = "<script>alert('x')</script> & <b>"
    result.scenario.title = result.scenario.question = evil
    result.claims[0].claim.because = result.claims[0].observed = evil
    result.rows[0].causes = [fakes.cause("lost", evil, 3)]
    for row in result.rows:
        row.params = {"guarantee": evil + row.params["guarantee"], "network.loss": row.params["network.loss"]}
    text, page = report(result, tmp_path, ["cdf"])
    assert "<script" not in text and "<b>" not in text
    assert page.headings[0] == (1, evil)
    assert not page.of("script")


def test_the_same_result_gives_the_same_bytes(tmp_path):
    first, _ = report(fakes.numeric_sweep(), tmp_path / "one", ["components"])
    second, _ = report(fakes.numeric_sweep(), tmp_path / "two", ["components"])
    assert first == second


def test_without_pictures_and_claims_it_is_still_a_report(tmp_path):
    page = Page(write_report(fakes.storage_with_faults(), tmp_path).read_text(encoding="utf-8"))
    assert "Claims" not in page.text and "Pictures" not in page.text
    assert "Nothing went wrong" in page.text
    assert "lost 0 to 900, duplicates 0 to 60, p99 latency 92.1 ms to 276 ms" in page.text


def test_warnings_say_which_faults_touched_nothing_and_what_was_still_under_way(tmp_path):
    result = fakes.single_row(inert=("crash of billing.9 at 70 s",), replications=2)
    result.rows[0].outcomes[1].inert = []
    result.rows[0].metrics["in_flight"] = 7
    _, page = report(result, tmp_path)
    assert "Beware" in page.text
    assert "crash of billing.9 at 70 s. Rows: this run (1 of 2 replications)." in page.text
    assert "7 messages were still on their way" in page.text


def verdicts(*several):
    return fakes.result([({}, fakes.metrics(), {}, ())], several)


def test_the_answer_gives_the_reasons_of_what_holds():
    text = answer(
        verdicts(fakes.verdict("lost == 0", because="disks survive."), fakes.verdict("duplicates > 0"))
    )
    assert text == "As claimed (all 2 claims hold): disks survive; duplicates > 0."


def test_the_answer_turns_a_misconception_round():
    text = answer(verdicts(fakes.verdict("lost == 0", refuted=True)))
    assert text == "As claimed (the claim holds): it is not true that lost == 0."


def test_the_answer_says_what_failed_and_what_was_seen():
    failed = fakes.verdict("lost == 0", holds=False, where="loss > 0", observed="lost = 12")
    text = answer(verdicts(fakes.verdict("duplicates > 0"), failed))
    assert (
        text == "Not as claimed, 1 of 2: it is not true that lost == 0 where loss > 0 (observed: lost = 12)."
    )
    stubborn = fakes.verdict("lost == 0", holds=False, refuted=True, because="so they say")
    assert "it is true that lost == 0" in answer(verdicts(stubborn))


def test_settings_are_told_once_and_differences_by_row():
    result = fakes.guarantees_by_loss()
    common = dict(common_settings(result).rows)
    assert common["channels.orders.settings.ack_timeout"] == "1 s"
    assert common["network.delay.exponential.mean"] == "1 ms"
    assert common["faults"] == "none"
    assert "network.loss" not in common
    axes = sweep_axes([row.params for row in result.rows])
    table = differing_settings(result, [row_label(axes, row.params) for row in result.rows])
    assert list(table.head) == ["", "row", "network.loss"]
    assert list(table.rows[3]) == ["4", "at-most-once, loss 20%", "20%"]


def test_what_a_guarantee_filled_in_is_told_once_per_filling():
    result = fakes.guarantees_by_loss()
    table = expansions_table(result, sweep_axes([row.params for row in result.rows]))
    assert list(table.head) == ["setting", "at-most-once", "at-least-once; exactly-once"]
    assert [list(row) for row in table.rows] == [["services.billing.settle", "before", "after"]]


def test_nested_settings_become_paths():
    nested = {"faults": [{"kind": "crash", "at": 10.0}], "links": {}, "keys": ["a", "b"], "resend": None}
    assert flat(nested) == {
        "faults.0.kind": "crash",
        "faults.0.at": 10.0,
        "links": {},
        "keys": ["a", "b"],
        "resend": None,
    }
    assert setting_text("keys", ["a", "b"]) == "a, b"
    assert setting_text("services.billing.effect", True) == "yes"
    assert setting_text("producers.shop.resend", None) == "none"


def test_the_command_names_a_shipped_scenario_a_file_and_what_was_changed(tmp_path):
    from sim.scenario.index import scenarios_folder

    result = fakes.single_row()
    result.scenario.file = scenarios_folder() / "published" / "p01.yaml"
    result.scenario.name = "published/p01"
    result.scenario.document.places[("network", "loss")] = SimpleNamespace(source="--set network.loss")
    _, page = report(result, tmp_path)
    assert "msgsim run published/p01 --seed 7 --replications 1" in page.text
    assert "other values were set for network.loss , as in the scenario below" in page.text
    result.scenario.file = None
    _, page = report(result, tmp_path)
    assert "built in Python" in page.text and "msgsim run" not in page.text


def test_the_gravest_and_most_frequent_causes_come_first():
    result = fakes.single_row(faults=fakes.FAULTS)
    result.rows[0].causes = [
        fakes.cause("duplicate", "x", 100),
        fakes.cause("lost", "rare", 1),
        fakes.cause("lost", "frequent", 3),
    ]
    table = causes_table(result)
    assert [(line[0], line[1], line[-1]) for line in table.rows] == [
        ("lost", "frequent", "3"),
        ("lost", "rare", "1"),
        ("duplicate", "x", "100"),
    ]


def test_a_known_cause_is_explained(tmp_path):
    from sim.ledger import known_causes

    known = known_causes()
    if not known:
        pytest.skip("no system has declared a cause yet")
    result = fakes.single_row()
    result.rows[0].causes = [fakes.cause(known[0].anomaly, known[0].name, 12, known[0].behaviour)]
    _, page = report(result, tmp_path)
    assert " ".join(known[0].meaning.split()) in page.text
    assert " ".join(known[0].prevented_by.split()) in page.text
