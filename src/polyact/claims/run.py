"""Run the claims of a system: measure each experiment once, judge every claim that reads it, and its placebo when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from polyact.claims.claim import Beats, Claim
from polyact.claims.harness import AGAIN, Measured, experiments, measure, rivals_of, seeds_from
from polyact.claims.power import Power, power
from polyact.claims.record import Json, as_json
from polyact.claims.verdict import Effect, Finding, Verdict, judge


@dataclass(frozen=True)
class Result:
    """A claim's finding, the numbers it rests on, and its power. headline: whether the system stands or falls by this claim."""

    slug: str
    headline: bool
    finding: Finding
    measured: Measured
    scale: str
    power: Power | None

    def to_json(self) -> Json:
        return {"headline": self.headline} | as_json(self.slug, self.finding, self.measured, self.scale, self.power)


def run_claims(
    slug: str,
    claims: Sequence[Claim],
    module: str,
    *,
    scale: str = "laptop",
    seeds: int | None = None,
    first_seed: int = 1000,
    placebo: bool = False,
    progress: bool = True,
) -> Iterator[list[Result]]:
    """The findings of a system's claims, those of one experiment at a time; with `placebo` those of every rival against itself under
    independent keys, which must come out as 'not shown'. The first claim is the headline: the system holds when that one does.
    module: where other processes find the claims; without its name all seeds run in this one.
    Raises KeyboardInterrupt when not even one seed of an experiment was finished; what was found before that has been yielded.
    """
    for number, experiment in enumerate(experiments(claims)):
        own = [claim for claim in claims if claim.experiment is experiment]
        rivals = rivals_of(own, experiment)
        if placebo and not rivals:
            continue
        count = experiment.scales[scale].seeds if seeds is None and scale in experiment.scales else seeds or 1
        measured = measure(
            experiment,
            scale,
            seeds_from(first_seed, count),
            arms=rivals if placebo else None,
            again=rivals if placebo else (),
            where=(module, number) if module else None,
            label=slug,
            progress=progress,
        )
        if not measured.seeds:
            raise KeyboardInterrupt
        results: list[Result] = []
        judged = [placebo_of(claim) for claim in own if isinstance(claim.test, Beats)] if placebo else own
        for claim in judged:
            finding = _placebo_finding(claim, measured) if placebo else judge(claim, measured.values)
            chance = None if placebo else power(finding, measured.values)
            results.append(Result(slug, claim.name == claims[0].name, finding, measured, scale, chance))
        yield results
        if measured.interrupted:
            break


def placebo_of(claim: Claim) -> Claim:
    """The claim that rivals beat themselves, by at least as much as was claimed (margins that tolerate a loss become zero)."""
    assert isinstance(claim.test, Beats)
    neutral = 1.0 if claim.test.ratio else 0.0
    rivals = {rival: max(margin, neutral) for rival, margin in claim.test.rivals.items()}
    says = f"placebo of '{claim.name}': each rival against itself"
    return replace(claim, says=says, test=replace(claim.test, rivals=rivals))


def _placebo_finding(claim: Claim, measured: Measured) -> Finding:
    """Every rival against its second measurement; the whole is shown when any of them is."""
    assert isinstance(claim.test, Beats)
    parts: list[Finding] = []
    for rival, margin in claim.test.rivals.items():
        names = {rival: measured.values[rival], f"{rival}{AGAIN}": measured.values[rival + AGAIN]}
        arms = dict(claim.experiment.arms) | {rival + AGAIN: claim.experiment.arms[rival]}
        pair = replace(
            claim,
            experiment=replace(claim.experiment, arms=arms),
            test=Beats(rival, {rival + AGAIN: margin}, claim.test.ratio),
        )
        parts.append(judge(pair, names))
    shown: list[Verdict] = [part.verdict for part in parts if part.verdict != "not shown"]
    effects: tuple[Effect, ...] = tuple(effect for part in parts for effect in part.effects)
    return Finding(claim, shown[0] if shown else "not shown", effects, len(measured.seeds))
