"""The harness of claims: verdicts that follow from the numbers, paired seeds, placebos, records that can be trusted."""

import json
import os
from dataclasses import replace

import jax
import numpy as np
import pytest
from claim_examples import ARMS, CLAIMS, ELSEWHERE, SCALES, THREADS, claim, draw, experiment, values

from polyact.claims import harness, record
from polyact.claims.card import Card
from polyact.claims.claim import Always, Arm, Beats, Experiment, Scale, Within
from polyact.claims.harness import AGAIN, measure, seeds_from
from polyact.claims.pages import claims_page
from polyact.claims.power import power
from polyact.claims.run import run_claims
from polyact.claims.verdict import judge, one_sided
from polyact.errors import PolyactError, SavedError
from polyact.evaluation.statistics.estimate import estimate

STEADY = np.array([0.0, 0.1, -0.1, 0.05, -0.05])


def verdict(test, **arms):
    return judge(claim(test), values(**{"system": STEADY, "ablation": STEADY, "other": STEADY} | arms)).verdict


def test_an_interval_beyond_the_margin_holds_and_one_below_zero_fails():
    alone = Beats("system", {"ablation": 0.5})
    assert verdict(alone, system=1 + STEADY[::-1]) == "holds"
    assert verdict(alone, system=0.45 + STEADY[::-1]) == "not shown"  # better, but by less than what is of interest
    assert verdict(alone, system=STEADY[::-1]) == "not shown"
    assert verdict(alone, system=STEADY[::-1] - 1) == "fails"


def test_the_interval_and_the_p_value_say_the_same():
    apart = np.random.default_rng(0).normal(0.6, 0.5, 8)
    level = 1 - 2 * one_sided(apart, 0.1)
    assert estimate(apart, units=("seeds", "seeds"), level=level).low == pytest.approx(0.1, abs=1e-3)


def test_every_rival_must_be_beaten():
    both = Beats("system", {"ablation": 0.5, "other": 0.5})
    assert verdict(both, system=1 + STEADY[::-1]) == "holds"
    assert verdict(both, system=1 + STEADY[::-1], other=0.9 + STEADY) == "not shown"


def test_holm_asks_more_of_several_rivals_than_of_one():
    noise = np.random.default_rng(3).normal(0, 0.5, 6)
    ours = {"system": 0.66 + noise}
    alone = judge(claim(Beats("system", {"ablation": 0.0})), values(ablation=np.zeros(6), **ours)).effects[0]
    arms = {name: np.zeros(6) for name in ("ablation", "other")}
    both = judge(claim(Beats("system", {"ablation": 0.0, "other": 0.0})), values(**arms, **ours)).effects
    assert both[0].p_holm == pytest.approx(2 * alone.p_holm)


def test_lower_can_be_better_and_factors_are_compared_on_a_log_scale():
    test = Beats("system", {"ablation": 1.5}, ratio=True)
    arms = values(system=np.exp(STEADY), ablation=2 * np.exp(STEADY[::-1]), other=STEADY)
    found = judge(claim(test, better="lower"), arms)
    assert found.verdict == "holds"
    assert found.effects[0].estimate.value == pytest.approx(np.log(2))
    with pytest.raises(PolyactError, match="must be positive"):
        judge(claim(test), values(system=STEADY, ablation=STEADY))


def test_no_worse_than_is_a_negative_margin():
    assert verdict(Beats("system", {"ablation": -0.5}), system=STEADY[::-1]) == "holds"
    assert verdict(Beats("system", {"ablation": -0.5}), system=STEADY[::-1] - 2) == "fails"


def test_bounds_on_a_mean_and_at_every_seed():
    assert verdict(Within("system", low=-0.5)) == "holds"
    assert verdict(Within("system", low=0.0)) == "not shown"
    assert verdict(Within("system", low=0.5)) == "fails"
    assert verdict(Always("system", high=0.1)) == "holds"
    assert verdict(Always("system", high=0.09)) == "fails"


def test_numbers_that_are_not_finite_have_no_verdict():
    with pytest.raises(PolyactError, match="score of 'system' is not finite at seed number 1"):
        judge(claim(), values(system=[0, np.nan], ablation=[0, 0], other=[0, 0]))
    with pytest.raises(PolyactError, match="reads the metric 'speed'"):
        judge(claim(metric="speed"), values(system=[0.0, 0]))


def test_claims_that_make_no_sense_are_refused():
    with pytest.raises(PolyactError, match="names the arm 'nobody'"):
        claim(Beats("system", {"nobody": 0.0}))
    with pytest.raises(PolyactError, match="at least one rival"):
        claim(Beats("system", {}))
    with pytest.raises(PolyactError, match="needs a bound"):
        claim(Always("system"))
    with pytest.raises(PolyactError, match="factors must be positive"):
        claim(Beats("system", {"other": 0.0}, ratio=True))
    with pytest.raises(PolyactError, match="role is 'system'"):
        experiment(arms={"other": Arm("baseline", "")})
    with pytest.raises(PolyactError, match="unknown family"):
        Card("a", "A", "A", "", "cooking", "learner", "", "")


def test_tuning_and_test_seeds_are_never_mixed():
    assert seeds_from(1000, 3) == (1000, 1001, 1002)
    assert seeds_from(0, 1000)[-1] == 999
    with pytest.raises(PolyactError, match="mix tuning"):
        seeds_from(998, 3)


def test_arms_of_a_seed_are_paired_and_more_seeds_change_nothing():
    few, more = (measure(experiment(), "laptop", seeds_from(1000, n), progress=False) for n in (2, 4))
    shared = np.array([10 * jax.random.normal(jax.random.key(seed)) for seed in (1000, 1001)])
    assert np.abs(few.values["system"]["score"] - 1 - shared).max() < 0.5
    np.testing.assert_array_equal(few.values["other"]["score"], more.values["other"]["score"][:2])


def test_a_batched_program_gives_what_single_seeds_give():
    own = experiment()
    seeds, arms = (1000, 1001, 1002), tuple(ARMS)
    together = harness.together(own, 0.1, seeds, arms, ("other",))
    for seed, row in zip(seeds, together, strict=True):
        alone = harness.one_seed(own, 0.1, seed, arms, ("other",))
        assert row.keys() == alone.keys()
        assert row["system"]["score"] == pytest.approx(alone["system"]["score"], rel=1e-5)


def test_a_program_is_traced_once_however_many_seeds():
    traces = []

    def counted(key, mean, spread, prepared):
        traces.append(mean)
        return draw(key, mean, spread, prepared)

    measure(experiment(measure=counted), "laptop", seeds_from(1000, 5), progress=False)
    assert sorted(traces) == sorted(arm.settings for arm in ARMS.values())


def test_processes_and_programs_agree():
    here = measure(experiment(), "laptop", seeds_from(1000, 2), progress=False)
    there = measure(ELSEWHERE, "laptop", seeds_from(1000, 2), where=("claim_examples", 0), progress=False)
    np.testing.assert_allclose(here.values["system"]["score"], there.values["system"]["score"], rtol=1e-5)


def test_seeds_after_the_first_run_in_processes_of_one_thread_each_and_give_the_same():
    before = dict(os.environ)
    here, there = (
        measure(THREADS, "laptop", seeds_from(1000, 4), where=where, progress=False) for where in (None, ("claim_examples", 1))
    )
    np.testing.assert_allclose(here.values["system"]["score"], there.values["system"]["score"], rtol=1e-5)
    assert np.all(here.values["system"]["process"] == os.getpid())
    assert there.values["system"]["process"][0] == os.getpid()
    assert os.getpid() not in there.values["system"]["process"][1:]
    np.testing.assert_array_equal(there.values["system"]["threads"][1:], 1)
    assert os.environ == before


def test_an_interruption_loses_no_finished_seed():
    calls = []

    def interrupted(key, mean, spread, prepared):
        calls.append(mean)
        if len(calls) == len(ARMS) + 2:
            raise KeyboardInterrupt
        return draw(key, mean, spread, prepared)

    got = measure(experiment("threads", interrupted), "laptop", seeds_from(1000, 2), progress=False)
    assert got.interrupted
    assert got.seeds == (1000,)
    assert got.values["other"]["score"].shape == (1,)


def test_an_interruption_loses_no_finished_experiment():
    def interrupted(key, mean, spread, prepared):
        raise KeyboardInterrupt

    found = run_claims("toy", [claim(), claim(of=experiment("threads", interrupted))], "", seeds=2, progress=False)
    assert next(found)[0].finding.verdict
    with pytest.raises(KeyboardInterrupt):
        next(found)


def test_a_scale_that_cannot_run_here_says_what_it_needs():
    scales = SCALES | {"paper": Scale(3, 1.0, "D4RL's hopper-medium-v2", lambda: "no such data set here")}
    own = Experiment(draw, ARMS, scales, "", experiment().budget)
    with pytest.raises(PolyactError, match="paper scale needs D4RL's hopper-medium-v2: no such data set here"):
        measure(own, "paper", (1000,), progress=False)


def test_the_placebo_measures_a_rival_twice_and_shows_nothing():
    ((result,),) = run_claims("toy", [claim(Beats("system", {"ablation": -0.5}))], "", placebo=True, progress=False)
    assert result.measured.values.keys() == {"ablation", "ablation" + AGAIN}
    assert result.finding.verdict == "not shown"
    assert not np.array_equal(*(metrics["score"] for metrics in result.measured.values.values()))


def test_power_grows_with_the_effect_and_is_what_simulation_gives():
    rng = np.random.default_rng(0)
    base = rng.normal(size=10)
    base = (base - base.mean()) / base.std(ddof=1)
    found = judge(claim(Beats("system", {"ablation": 0.0})), values(system=base, ablation=np.zeros(10)))
    assert power(found, values(system=base, ablation=np.zeros(10))).measured == pytest.approx(0.025, abs=0.012)
    one = values(system=base + 1.0, ablation=np.zeros(10))  # effect of one standard deviation, 10 pairs: 80.3% by the noncentral t
    strong = power(judge(claim(Beats("system", {"ablation": 0.0})), one), one)
    assert strong.measured == pytest.approx(0.803, abs=0.03)
    assert strong.detectable == pytest.approx(1.0, abs=0.05)


def test_a_record_keeps_what_was_shown(tmp_path):
    source, file = tmp_path / "toy.py", tmp_path / "record.jsonl"
    source.write_text("CARD = 1")
    ((result,),) = run_claims("toy", [claim()], "", progress=False)
    entry = json.loads(json.dumps(result.to_json(), allow_nan=False))
    record.append([entry], source, file)
    record.append([entry | {"verdict": "not shown"}], source, file)
    assert len(record.read(file)) == 2
    last = record.latest(file)["toy", "beats"]
    assert last["verdict"] == "not shown"
    assert last["version"]["file"] == record.text_hash(source)
    assert [effect["rival"] for effect in last["effects"]] == ["ablation", "other"]
    assert "over ablation" in record.effect_line(last, last["effects"][0])


def test_a_system_holds_by_its_first_claim(tmp_path):
    second = replace(claim(), name="second")
    found = [result.to_json() for part in run_claims("toy", [claim(), second], "", progress=False) for result in part]
    assert [entry["headline"] for entry in found] == [True, False]
    source, file = tmp_path / "toy.py", tmp_path / "record.jsonl"
    source.write_text("CARD = 1")
    record.append([found[0] | {"verdict": "fails"}, found[1]], source, file)
    card = Card("toy", "Toy", "A toy", "", "offline", "learner", "plays", "play()")
    assert "is its headline; it holds for 0 of 1." in claims_page(record.latest(file), {"toy": card})


def test_saying_what_came_out_does_not_make_a_file_another(tmp_path):
    before, after, other = (tmp_path / name for name in ("before.py", "after.py", "other.py"))
    before.write_text('"""A system."""\n\nCARD = 1\n')
    after.write_text('"""A system.\n\nMeasured: it holds.\n"""\n\nCARD = 1\n')
    other.write_text('"""A system."""\n\nCARD = 2\n')
    assert record.text_hash(before) == record.text_hash(after) != record.text_hash(other)


def test_smoke_runs_and_tuning_seeds_are_not_recorded(tmp_path):
    source = tmp_path / "toy.py"
    source.write_text("")
    ((smoke,),) = run_claims("toy", [claim()], "", scale="smoke", progress=False)
    assert smoke.to_json()["verdict"] is None
    with pytest.raises(PolyactError, match="no verdict to record"):
        record.append([smoke.to_json()], source, tmp_path / "r")
    ((tuned,),) = run_claims("toy", [claim()], "", first_seed=0, progress=False)
    with pytest.raises(PolyactError, match="tuning seeds"):
        record.append([tuned.to_json()], source, tmp_path / "r")
    (tmp_path / "r").write_text("{\n")
    with pytest.raises(SavedError, match="line 1: not JSON"):
        record.read(tmp_path / "r")


def test_claims_of_one_experiment_share_its_numbers():
    shared = experiment()
    both = [claim(of=shared), claim(Within("system", low=0.0), of=shared)]
    ((one, other),) = run_claims("toy", both, "", seeds=3, progress=False)
    assert one.measured is other.measured
    assert CLAIMS[0].experiment is ELSEWHERE
