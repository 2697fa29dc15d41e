"""`msgsim why`: the story of one message, its cause, and the command that an unbalanced run names."""

import json
import re
import shlex
from pathlib import Path

import pytest

from sim.brokers.textbook.broker import Queue
from sim.cli import main
from sim.explain import Unknown, explain
from sim.ledger import known_causes

LOSSY = """\
title: A lossy network
question: What does loss do?
messages: 60
seed: 3
replications: 2
channels: {orders: {ack_timeout: 200 ms}}
producers: {shop: {arrivals: 100/s, resend: {timeout: 50 ms}}}
services: {billing: {service_time: 1 ms}}
network: {loss: 20%}
sweep: {guarantee: [at-most-once, exactly-once]}
"""
QUIET = """\
title: All is well
messages: 20
channels: {orders: {}}
producers: {shop: {arrivals: 100/s}}
services: {billing: {service_time: 1 ms}}
"""
FULL = """\
title: A full queue
messages: 20
channels: {orders: {max_length: 1, overflow: reject}}
producers: {shop: {arrivals: 100/s, resend: {timeout: 1 s, attempts: 1}}}
services: {billing: {service_time: 100 ms, prefetch: 1}}
"""
POISON = """\
title: Poison
messages: 5
channels: {orders: {max_attempts: 2, dead_letter: true}}
producers: {shop: {arrivals: 10/s}}
services: {billing: {service_time: 1 ms, failures: {poison: 100%}}}
"""
OVERTAKING = """\
title: Two consumers
messages: 50
channels: {orders: {}}
producers: {shop: {arrivals: 100/s}}
services: {billing: {consumers: 2, service_time: 1 ms}}
network: {links: {orders -> billing.1: {delay: 150 ms}}}
"""
CRASHED = """\
title: A crash
messages: 50
channels: {orders: {}}
producers: {shop: {arrivals: {deterministic: 100/s}}}
services: {billing: {service_time: 1 ms}}
faults: [{crash: orders, at: 100 ms, lasting: 50 ms}]
"""
CHAIN = """\
title: A service that publishes
messages: 3
channels: {orders: {}, mails: {}}
producers: {shop: {channel: orders, arrivals: 10/s}}
services:
  billing: {channel: orders, service_time: 1 ms, publishes: {channel: mails}}
  mailer: {channel: mails, service_time: 1 ms}
"""
WORLDS = {
    "lossy": LOSSY,
    "quiet": QUIET,
    "full": FULL,
    "poison": POISON,
    "overtaking": OVERTAKING,
    "crashed": CRASHED,
    "chain": CHAIN,
}
KEYS = "scenario seed row params replication channel message subscription anomaly cause behaviour meaning"
CAUSES = {cause.name: cause for cause in known_causes() if cause.system in ("textbook", "application")}


@pytest.fixture
def msgsim(tmp_path, monkeypatch, capsys):
    """Runs the command within this process, beside a file for each of the worlds: exit code, output, error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in WORLDS.items():
        Path(f"{name}.yaml").write_text(text)

    def run(line):
        with pytest.raises(SystemExit) as exit:
            main(shlex.split(line))
        return exit.value.code, *capsys.readouterr()

    return run


def told(msgsim, line):
    """The story as an object."""
    code, out, err = msgsim(f"why {line} --json")
    assert (code, err) == (0, "")
    return json.loads(out)


def whats(story, copy=None):
    return [event["what"] for event in story["events"] if copy is None or event["copy"] == copy]


# -- each kind of anomaly


@pytest.mark.parametrize(
    "line, anomaly, causes, last",
    [
        ("lossy.yaml", "lost", {"publish_lost", "delivery_lost"}, None),
        ("lossy.yaml --anomaly duplicate", "duplicate", {"confirm_lost", "ack_lost"}, None),
        ("full.yaml", "rejected", {"queue_full"}, None),
        ("poison.yaml", "dead_lettered", {"attempt_limit"}, "dead_letter"),
        ("overtaking.yaml", "reordered", {"overtaken"}, "effect"),
        ("crashed.yaml --anomaly lost", "lost", {"broker_down"}, "died"),
    ],
)
def test_the_first_message_with_an_anomaly_has_its_story_told(msgsim, line, anomaly, causes, last):
    story = told(msgsim, line)
    assert story["anomaly"] == anomaly
    assert story["cause"] in causes
    cause = CAUSES[story["cause"]]
    assert story["behaviour"] == cause.behaviour
    assert (story["meaning"], story["prevented_by"]) == (cause.meaning, cause.prevented_by)
    assert whats(story)[0] == "publish"
    assert last is None or whats(story)[-1] == last
    times = [event["time"] for event in story["events"]]
    assert times == sorted(times)
    assert any(story["cause"] == event["cause"] for event in story["events"]) or anomaly == "reordered"


@pytest.mark.parametrize("line", ["lossy.yaml", "lossy.yaml --anomaly duplicate", "poison.yaml"])
def test_the_text_names_the_cause_its_behaviour_and_what_prevents_it(msgsim, line):
    story = told(msgsim, line)
    code, out, err = msgsim(f"why {line}")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert f"cause {story['anomaly']}: {story['cause']}" in words
    assert f"behaviour {story['behaviour']}" in words
    assert f"prevented by {story['prevented_by']}" in words
    assert f"orders:{story['message']}" in words
    assert all(event["text"] in words for event in story["events"])


def test_a_repeat_is_a_copy_with_a_label_that_says_how_it_came_to_be(msgsim):
    story = told(msgsim, "lossy.yaml --anomaly duplicate --row 1")
    assert whats(story).count("processed") == 2
    assert whats(story).count("effect") == 1  # exactly once: the second processing has none
    born = [event for event in story["events"] if event["what"] in ("copy", "requeue")]
    for number, event in enumerate(born, start=2):
        how = "redelivered" if event["what"] == "requeue" else "resent"
        assert event["copy"] == f"copy {number} ({how}: {event['cause']})"
        assert f"as copy {number}: " in event["text"]
    assert story["cause"] in [event["cause"] for event in born]
    (again,) = [event for event in story["events"] if "processing 2 of this message" in event["text"]]
    assert again["text"].endswith(", without an effect, since it was known")


def test_only_the_end_is_called_one(msgsim):
    """Copies that were lost before the last one are gone, and no more than that."""
    ends = [
        event["what"] for event in told(msgsim, "lossy.yaml")["events"] if "lost for good" in event["text"]
    ]
    assert ends == ["died"]
    stories = [explain("lossy.yaml", message=number, row=1) for number in range(20)]
    texts = [event.text for story in stories for event in story.events]
    assert any(
        " is gone: the network lost the message on its way to the broker (publish_lost)" in t for t in texts
    )
    assert not any("lost for good" in text or "forgotten" in text for text in texts)


def test_faults_that_were_on_are_mentioned(msgsim):
    story = told(msgsim, "crashed.yaml")
    assert story["events"][-1]["text"].endswith(" (broker_down) [crash of orders 0.1-0.15 s]")
    before = told(msgsim, "crashed.yaml --message 0")
    assert not any("[" in event["text"] for event in before["events"])


def test_a_later_message_that_came_first_is_named(msgsim):
    out = " ".join(msgsim("why overtaking.yaml")[1].split())
    began, later = re.search(
        r"billing began orders:(\d+) at .* after orders:(\d+), a later message", out
    ).groups()
    assert int(later) > int(began)


def test_what_came_late_because_a_copy_was_lost_is_not_said_to_be_lost(msgsim):
    story = told(msgsim, "lossy.yaml --anomaly reordered --row 1")
    assert CAUSES[story["cause"]].anomaly == "lost"
    assert story["meaning"].endswith(", and the copy that took its place came later.")
    assert story["prevented_by"] == CAUSES["overtaken"].prevented_by


# -- a given message


def test_a_message_that_fared_well_has_its_story_too(msgsim):
    story = told(msgsim, "quiet.yaml --message 4")
    assert (story["channel"], story["message"], story["subscription"]) == ("orders", 4, "billing")
    assert story["anomaly"] is story["cause"] is story["prevented_by"] is None
    assert whats(story) == ["publish", "stored", "sent", "delivered", "started", "processed", "effect"]
    code, out, _ = msgsim("why quiet.yaml --message orders:4")
    assert code == 0
    assert "All went well: billing processed orders:4 once, " in " ".join(out.split())


def test_an_output_names_the_message_that_it_was_published_for(msgsim):
    story = told(msgsim, "chain.yaml --message mails:1")
    assert story["subscription"] == "mailer"
    assert story["events"][0]["text"] == "billing has a message to publish, because of orders:1: copy 1"


def test_the_story_is_of_the_row_replication_and_seed_asked_for(msgsim):
    story = told(msgsim, "lossy.yaml --message 5 --row 1 --replication 1 --seed 8")
    assert (story["row"], story["replication"], story["seed"]) == (1, 1, 8)
    assert story["params"] == {"guarantee": "exactly-once"}
    assert (
        story["events"] != told(msgsim, "lossy.yaml --message 5 --row 1 --replication 0 --seed 8")["events"]
    )
    again = told(msgsim, "lossy.yaml --message 5 --row 1 --replication 1 --seed 8")
    assert again == story


def test_a_message_and_an_anomaly_are_looked_for_together(msgsim):
    lost = told(msgsim, "lossy.yaml --anomaly lost")
    repeated = told(msgsim, f"lossy.yaml --anomaly duplicate --message {lost['message']}")
    assert repeated["message"] == lost["message"]
    assert (repeated["row"], repeated["replication"]) > (lost["row"], lost["replication"])
    assert told(msgsim, f"lossy.yaml --message {lost['message']}") == lost


def test_settings_are_overridden(msgsim):
    code, out, err = msgsim("why lossy.yaml --set network.loss=0% --set messages=10")
    assert (code, out, err) == (0, "There is no anomaly of any message in any row.\n", "")


# -- nothing to tell, bad input


@pytest.mark.parametrize(
    "line, text",
    [
        ("quiet.yaml", "There is no anomaly of any message in any row."),
        ("lossy.yaml --anomaly expired", "There is no anomaly 'expired' of any message in any row."),
        (
            "lossy.yaml --anomaly lost --row 1 --replication 1",
            "There is no anomaly 'lost' of any message in row 1, replication 1.",
        ),
        ("quiet.yaml --anomaly lost --message 3", "There is no anomaly 'lost' of message 3 in any row."),
    ],
)
def test_nothing_found_is_one_line_and_no_error(msgsim, line, text):
    assert msgsim(f"why {line}") == (0, text + "\n", "")
    code, out, err = msgsim(f"why {line} --json")
    assert (code, err) == (0, text + "\n")
    found = json.loads(out)
    assert list(found) == [*KEYS.split(), "prevented_by", "events"]
    assert found["scenario"] == line.split(".")[0]
    assert (found["anomaly"], found["message"], found["events"]) == (None, None, [])


@pytest.mark.parametrize(
    "line, text",
    [
        ("lossy.yaml --anomaly lots", "--anomaly: expected an anomaly, found 'lots'; did you mean 'lost'?"),
        ("lossy.yaml --message order:3", "--message: unknown channel 'order'; did you mean 'orders'?"),
        (
            "lossy.yaml --message orders:60",
            "--message: unknown message orders:60; expected a number from 0 to 59",
        ),
        (
            "lossy.yaml --message x",
            "--message: expected CHANNEL:NUMBER such as orders:17, found 'x'",
        ),
        (
            "chain.yaml --message 1",
            "--message: expected CHANNEL:NUMBER, found '1'; the channels are orders, mails",
        ),
        ("lossy.yaml --row 2", "--row: expected a row from 0 to 1, found 2"),
        ("lossy.yaml --row -1", "--row: expected a whole number, 0 or more, found '-1'"),
        ("missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        (
            "lossy.yaml --set network.los=5%",
            "--set network.los: unknown path; did you mean 'network.loss'?",
        ),
    ],
)
def test_bad_input_is_one_line(msgsim, line, text):
    assert msgsim(f"why {line}") == (2, "", f"msgsim: {text}\n")


def test_the_library_says_what_is_not_there(msgsim):
    with pytest.raises(Unknown, match="message: unknown message orders:60"):
        explain("lossy.yaml", message="orders:60")


def test_json_is_one_object_of_the_agreed_shape(msgsim):
    story = told(msgsim, "lossy.yaml")
    assert list(story) == [*KEYS.split(), "prevented_by", "events"]
    assert (story["scenario"], story["seed"], story["channel"]) == ("lossy", 3, "orders")
    for event in story["events"]:
        assert list(event) == ["time", "subscription", "copy", "what", "cause", "text"]


# -- books that do not balance


@pytest.fixture
def leaky(monkeypatch):
    """A broker that forgets a message without a word."""
    put = Queue.put

    def leak(self, copy):
        if copy != 17:
            put(self, copy)

    monkeypatch.setattr(Queue, "put", leak)


def test_unbalanced_books_name_a_command_that_tells_the_story(msgsim, leaky):
    line = "run lossy.yaml --no-plots --no-store --seed 4 --messages 40 --set 'network.loss=0 %'"
    code, out, err = msgsim(line)
    assert (code, out) == (3, "")
    (command,) = re.findall("`msgsim (.*?)`", err)
    assert command == (
        "why lossy.yaml --set 'network.loss=0 %' --set messages=40 --row 0 "
        "--message orders:17 --seed 4 --replication 0"
    )
    story = told(msgsim, command.removeprefix("why "))
    assert (story["message"], story["anomaly"], story["cause"]) == (17, None, None)
    assert whats(story) == ["publish", "confirmed"]
    code, out, err = msgsim(command)
    assert (code, err) == (0, "")
    text = "orders:17 is unaccounted for at billing: never processed, no copy is left, and none was reported dead."
    assert text in " ".join(out.split())


def test_a_search_audits_the_books(msgsim, leaky):
    code, out, err = msgsim("why quiet.yaml")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert "`msgsim why quiet.yaml --row 0 --message orders:17 --seed 1 --replication 0`" in err
