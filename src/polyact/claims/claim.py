"""What a paper claims, as an experiment that can fail: arms under one budget, a metric, and a test with a margin.

An experiment measures every arm at every seed; claims read its numbers. Several claims may read one experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polyact.errors import PolyactError

Role = Literal["system", "ablation", "baseline", "control"]
Runner = Literal["program", "threads", "processes"]
Better = Literal["higher", "lower"]
Metrics = Mapping[str, Any]
Measure = Callable[[Any, Any, Any, Any], Metrics]
Prepare = Callable[[Any, Any], Any]

SCALES = ("smoke", "laptop", "paper")
FIRST_TEST_SEED = 1000  # tuning seeds lie below


@dataclass(frozen=True)
class Arm:
    """One way of doing it. role: the system, the ablation that removes exactly its idea, a baseline, or a control that must not help.

    settings: what `measure` gets for this arm (a learner, numbers, a function).
    """

    role: Role
    about: str
    settings: Any = None


@dataclass(frozen=True)
class Budget:
    """What every arm gets alike, in words: data, steps, network, and how settings were tuned (on seeds below 1000)."""

    data: str
    steps: str
    network: str
    tuning: str


@dataclass(frozen=True)
class Scale:
    """How large a run is. seeds: how many by default; sizes: what `measure` gets.

    needs: the data and hardware it takes, empty when any machine will do; missing(): why it can't run here, empty when it can.
    """

    seeds: int
    sizes: Any
    needs: str = ""
    missing: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class Experiment:
    """How the arms of claims are measured.

    measure(key, settings of the arm, sizes of the scale, prepared) -> {metric: number}. prepare(key, sizes) makes what all arms of a
    seed share (data, a trained base policy); without it `prepared` is None. Both get the same key at every arm of a seed.

    runner: 'program' when both are pure functions of arrays, so that they are compiled whole, and on a GPU all seeds as one batch;
    'threads' when they call `fit`, `train` and `rollout`, which compile themselves; 'processes' when they are Python for which not even
    the first seed may share a process. Seeds of all three may run in other processes; what `prepare` returns stays in its own.
    """

    measure: Measure
    arms: Mapping[str, Arm]
    scales: dict[str, Scale]
    testbed: str
    budget: Budget
    prepare: Prepare | None = None
    runner: Runner = "program"

    def __post_init__(self):
        if not {"smoke", "laptop"} <= set(self.scales) <= set(SCALES):
            raise PolyactError(
                f"an experiment needs the scales smoke and laptop (and may have paper), got {', '.join(self.scales)}"
            )
        if sum(arm.role == "system" for arm in self.arms.values()) < 1:
            raise PolyactError("an experiment needs an arm whose role is 'system'")


@dataclass(frozen=True)
class Beats:
    """`arm` is better than each rival by more than a margin.

    rivals: the smallest effect of interest against each, in the metric's units, or with `ratio` as a factor (1.2: by a fifth; the
    metric is then compared on a log scale and must be positive). A negative margin (or a factor below 1) claims "no worse than by".
    """

    arm: str
    rivals: Mapping[str, float]
    ratio: bool = False


@dataclass(frozen=True)
class Within:
    """The mean of `arm` over seeds lies between the bounds, its interval too."""

    arm: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Always:
    """An invariant: at every seed the metric of `arm` lies between the bounds (which may be equal to it)."""

    arm: str
    low: float | None = None
    high: float | None = None


Test = Beats | Within | Always


@dataclass(frozen=True)
class Claim:
    """What must come out, in words (`says`), and how that is judged: `test` on `metric` of `experiment`."""

    name: str
    says: str
    experiment: Experiment = field(repr=False)
    metric: str
    test: Test
    better: Better = "higher"

    def __post_init__(self):
        test, arms = self.test, self.experiment.arms
        named = [test.arm, *(test.rivals if isinstance(test, Beats) else ())]
        for name in named:
            if name not in arms:
                raise PolyactError(
                    f"claim '{self.name}' names the arm '{name}', which the experiment does not have: {', '.join(arms)}"
                )
        if isinstance(test, Beats):
            if not test.rivals or test.arm in test.rivals:
                raise PolyactError(f"claim '{self.name}' needs at least one rival other than its own arm")
            if test.ratio and min(test.rivals.values()) <= 0:
                raise PolyactError(f"claim '{self.name}': factors must be positive, got {dict(test.rivals)}")
        elif test.low is None and test.high is None:
            raise PolyactError(f"claim '{self.name}' needs a bound")
