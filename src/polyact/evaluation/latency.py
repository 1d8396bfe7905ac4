"""How good a policy is when it is slow: scores over latency, paired across policies and latencies."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.realtime import Fallback
from polyact.errors import PolyactError
from polyact.evaluation.evaluate import Clock, Policies, World, play
from polyact.evaluation.report.report import Section
from polyact.evaluation.report.scores import curve_section
from polyact.evaluation.statistics.curves import Curve, curve


def latency_curves(
    policies: Policies,
    env: World,
    *,
    control_hz: float,
    latencies: Sequence[float],
    episodes: int,
    key: PRNGKeyArray,
    fallback: Fallback = "hold",
    in_flight: int | None = None,
) -> list[Curve]:
    """Mean return of every policy at every latency (seconds; x in milliseconds), all under the same initial states and disturbances."""
    if len(latencies) < 2 or sorted(set(latencies)) != list(latencies):
        raise PolyactError(f"a latency curve needs at least two rising latencies, got {list(latencies)}")
    clocks = [Clock(control_hz, latency, fallback, in_flight) for latency in latencies]
    played = [play(policies, env, episodes=episodes, key=key, clock=clock) for clock in clocks]
    milliseconds = [1000 * latency for latency in latencies]
    out = []
    for name, runs in played[0].items():
        scores = np.stack([np.stack([run.returns for run in at[name]]) for at in played], axis=-1)
        single = len(runs) == 1  # one run says nothing about other runs: its initial states are resampled then
        units = ("initial states", "runs") if single else ("runs", "initial states")
        out.append(curve(name, milliseconds, scores[0] if single else scores, units=units))
    return out


def latency_section(curves: Sequence[Curve], control_hz: float, fallback: Fallback = "hold") -> Section:
    """The curves of `latency_curves` for a report; control_hz and fallback as they were played."""
    text = f"The world moves on at {control_hz:g} Hz while the policy computes; fallback {fallback}."
    return curve_section("Latency", curves, x_label="latency (ms)", y_label="mean return", text=text)
