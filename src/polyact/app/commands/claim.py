"""`polyact claim`: run experiments, print verdicts, keep them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from polyact import cache
from polyact.app.arguments import ClaimOf
from polyact.app.show import print_json, print_table, say
from polyact.claims import record
from polyact.claims.claim import SCALES, Always, Beats, Budget, Within
from polyact.claims.harness import prepare_xla
from polyact.claims.run import Result, run_claims
from polyact.errors import PolyactError, unknown
from polyact.learning.program import release_programs
from polyact.systems import catalogue


def run(command: ClaimOf) -> None:
    slugs = _chosen(command)
    if command.scale not in SCALES:
        raise unknown("scale", command.scale, SCALES)
    if command.record and (command.placebo or command.scale == "smoke" or command.first_seed < 1000):
        raise PolyactError(
            "--record keeps verdicts of test seeds: leave out --placebo, --scale smoke and a --first-seed below 1000"
        )
    prepare_xla()
    cache.enable()
    with _hasty() if command.scale == "smoke" else nullcontext():
        _run_all(slugs, command)


@contextmanager
def _hasty() -> Iterator[None]:
    """Programs that run once or twice cost little but their compilation, so it is cut short."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def _run_all(slugs: list[str], command: ClaimOf) -> None:
    results: list[Result] = []
    failed: dict[str, str] = {}
    interrupted = False
    for slug in slugs:
        try:
            for found in _run(slug, command):
                results += found
                interrupted = found[0].measured.interrupted
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            if len(slugs) == 1:
                raise
            failed[slug] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(f"polyact: {slug}: {failed[slug]}", file=sys.stderr)
        finally:
            release_programs(unless_fewer_maps_than=20_000)
        if interrupted:
            break
    if command.json:
        print_json({"claims": [result.to_json() for result in results], "failed": failed, "interrupted": interrupted})
    elif results:
        _tell(results, command)
    if interrupted:
        raise KeyboardInterrupt
    if failed:
        raise PolyactError(f"{len(failed)} of {len(slugs)} systems could not be measured: {', '.join(failed)}")


def _run(slug: str, command: ClaimOf) -> Iterator[list[Result]]:
    """The findings of one experiment after the other, told and recorded."""
    system = catalogue.system(slug)
    for found in run_claims(
        slug,
        system.claims,
        system.module.__name__,
        scale=command.scale,
        seeds=command.seeds,
        first_seed=command.first_seed,
        placebo=command.placebo,
        progress=not command.json,
    ):
        if not command.json:
            _tell_experiment(slug, found)
            for result in found:
                say(f"  {_verdict(result)}: {result.finding.claim.name}")
        if command.record and not found[0].measured.interrupted:
            record.append([result.to_json() for result in found], catalogue.place(slug))
        yield found


def _chosen(command: ClaimOf) -> list[str]:
    if sum((bool(command.slugs), command.family is not None, command.all)) != 1:
        raise PolyactError("name systems, or give --family F or --all (polyact systems lists them)")
    if command.slugs:
        return [catalogue.place(slug).stem.replace("_", "-") for slug in dict.fromkeys(command.slugs)]
    return list(catalogue.cards(command.family))


def _tell_experiment(slug: str, found: list[Result]) -> None:
    experiment, measured = found[0].finding.claim.experiment, found[0].measured
    say(f"\n{slug}: {experiment.testbed} ({len(measured.seeds)} seeds from {measured.seeds[0]}, {measured.seconds:.1f} s)")
    say(f"  every arm: {_budget(experiment.budget)}")
    metrics = list(dict.fromkeys(metric for values in measured.values.values() for metric in values))
    rows = [
        (arm, experiment.arms[arm].role if arm in experiment.arms else "again", *_means(values, metrics))
        for arm, values in measured.values.items()
    ]
    print_table("", ("arm", "role", *metrics), rows)


def _budget(budget: Budget) -> str:
    return "; ".join(f"{name}: {text}" for name, text in vars(budget).items())


def _means(values: dict, metrics: list[str]) -> list[str]:
    return [f"{values[metric].mean():.4g} (sd {values[metric].std():.2g})" if metric in values else "" for metric in metrics]


def _tell(results: list[Result], command: ClaimOf) -> None:
    rows = []
    for result in results:
        claim, entry = result.finding.claim, result.to_json()
        effects = "\n".join(record.effect_line(entry, effect) for effect in entry["effects"])
        sure = "" if result.power is None else f"{result.power.measured:.0%}; {result.power.detectable:.1f} sd"
        rows.append(
            (result.slug, claim.says, _needed(claim.test), effects, _verdict(result), sure, f"{result.measured.seconds:.0f}")
        )
    print_table("Claims", ("system", "claim", "needed", "effect [95 %]", "verdict", "power; detectable", "s"), rows)
    if command.scale == "smoke":
        say("A smoke run shows only that everything runs; polyact claim without --scale gives the verdict.")
    elif heads := [result for result in results if result.headline and not command.placebo]:
        held = sum(result.finding.verdict == "holds" for result in heads)
        say(f"The headline claim, a system's first, holds for {held} of {len(heads)} systems.")


def _needed(test: Beats | Within | Always) -> str:
    if isinstance(test, Beats):
        return "\n".join(f"{'x' if test.ratio else ''}{margin:g} over {rival}" for rival, margin in test.rivals.items())
    bounds = [
        f"{'≥' if name == 'low' else '≤'} {value:g}" for name in ("low", "high") if (value := getattr(test, name)) is not None
    ]
    return f"{test.arm} {' and '.join(bounds)}{' at every seed' if isinstance(test, Always) else ''}"


def _verdict(result: Result) -> str:
    short = f" ({result.finding.seeds} seeds, interrupted)" if result.measured.interrupted else ""
    return ("no verdict" if result.scale == "smoke" else result.finding.verdict) + short
