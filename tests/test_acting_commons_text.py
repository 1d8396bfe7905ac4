"""The text protocol of the commons, with scripted speakers: it is the world of arrays, it leaks nothing, and it can be replayed."""

import jax
import pytest

from polyact.acting.commons_text import SCENARIOS, Protocol, last_number, play_text
from polyact.envs.commons import Commons
from polyact.errors import PolyactError
from polyact.policies.language.backend import Scripted
from polyact.policies.language.calls import CallLog
from polyact.policies.language.recorded import Recorded

KEY = jax.random.key(0)


def speaker(each, asked=None, limit="10"):
    """Takes `each`, says nothing of interest, and as a framework reads the limit."""

    def script(request):
        if asked is not None:
            asked.append(request.text)
        text = request.messages[-1].content
        if "How many" in text:
            return f"There are 100, so I think... Answer: {each}"
        return f"Answer: {limit}" if "Which limit" in text else "Let us be careful."

    return Scripted(script)


def play(each, protocol=None, commons=None, **options):
    agent = speaker(each, **options)
    return play_text(commons or Commons(), [agent] * 5, agent, protocol or Protocol(rounds=5, utterances=2), KEY)


@pytest.mark.parametrize(("each", "stocks", "lost"), [(10, [100] * 5, None), (12, [100, 80, 40], 3), (20, [100], 1)])
def test_steady_teams_have_the_stocks_of_the_arrays(each, stocks, lost):
    trace = play(each).trace
    assert trace.stock[trace.alive].tolist() == stocks
    assert trace.survived.sum() == (5 if lost is None else lost - 1)


def test_the_trash_house_is_its_own_world():
    trace = play(10, Protocol("trash", rounds=3, utterances=0), Commons(growth=50.0, inverse=True)).trace
    assert trace.stock.tolist() == [100.0] * 3


def test_agents_never_hear_the_threshold_unless_the_sentence_is_said():
    asked = []
    play(7, Protocol(rounds=2, utterances=2), asked=asked, limit="8")
    assert not any("will shrink" in text for text in asked)
    play(7, Protocol(rounds=1, utterances=0, universalization=True), asked=(told := []))
    assert sum("if everyone fishes more than 10," in text for text in told) == 5


def test_takings_are_revealed_after_the_harvest_and_the_agreed_limit_is_remembered():
    asked = []
    history = play(7, Protocol(rounds=2, utterances=2), asked=asked, limit="8")
    harvests = [text for text in asked if "How many" in text]
    assert history.limits == (8.0, 8.0)
    assert "took" not in harvests[0]
    assert "Agent C took 7 tons of fish" in harvests[5]
    assert "at most 8 tons of fish per person" in harvests[5]
    assert [len(talk) for talk in history.said] == [2, 2]


def test_without_talk_nothing_is_agreed_on():
    history = play(7, Protocol(rounds=2, utterances=0))
    assert history.limits == (None, None)


def test_a_newcomer_takes_part_from_its_month_on():
    history = play(10, Protocol(rounds=4, utterances=0, joins=(0, 0, 0, 0, 2)))
    assert history.trace.wish[:, 4].tolist() == [0, 0, 10, 10]
    assert history.trace.threshold[0] == 12


def test_answers_without_a_number_count_as_nothing_and_are_counted():
    history = play("nothing", Protocol(rounds=1, utterances=0))
    assert history.trace.wish.sum() == 0
    assert history.unread == 5


def test_every_scenario_can_be_played():
    for name in SCENARIOS:
        commons = Commons(growth=50.0, inverse=True) if name == "trash" else Commons()
        agent = Scripted(lambda request: "Answer: 10")
        assert play_text(commons, [agent] * 5, agent, Protocol(name, rounds=2, utterances=1), KEY).trace.survived.all()


def test_a_recorded_run_is_played_again(tmp_path):
    path = tmp_path / "calls.jsonl"
    agent = Scripted(lambda request: f"Answer: {8 + request.seed % 5}", calls=CallLog(path))
    protocol = Protocol(rounds=2, utterances=1)
    first = play_text(Commons(), [agent] * 3, agent, protocol, KEY)
    again = Recorded(path)
    second = play_text(Commons(), [again] * 3, again, protocol, KEY)
    assert first.trace.taken.tolist() == second.trace.taken.tolist()
    assert again.calls.spent == agent.calls.spent


@pytest.mark.parametrize(
    ("text", "number"), [("Answer: 12", 12), ("I take 3 of 90. answer: 7.9 tons", 7), ("5 or 6", 6), ("none", None)]
)
def test_numbers_are_read(text, number):
    assert last_number(text) == number


def test_unknown_scenarios_are_refused():
    with pytest.raises(PolyactError, match="one of the scenarios"):
        play(1, Protocol("desert"))
