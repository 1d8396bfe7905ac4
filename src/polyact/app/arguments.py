"""The command line as data: one small class per command, whose field comments are its help. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, UseAppendAction, arg, subcommand

Json = Annotated[bool, arg(name="json", help="Print one JSON value instead of tables.")]
Debug = Annotated[bool, arg(name="debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, arg(name="overwrite", help="Replace what is there.")]
Many = UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Demo:
    """From three mixed behaviours to a policy and a report, in about a minute: nothing needed but this package."""

    out: Path = Path("polyact-demo")
    """Folder for data, runs and the report."""
    seed: int = 0
    """Everything random in the demo follows from it."""
    overwrite: Overwrite = False
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Make:
    """Train an online agent on an environment and write what behaviours of different quality leave behind.

    Writes random, medium, expert, medium-replay, mixed, noisy and action-free sources, each with its labels.
    """

    env: Positional[str]
    """Name of a functional environment (polyact envs)."""
    out: Path = Path("data")
    """Folder that will hold one data set per source."""
    episodes: int = 100
    """Episodes of each recorded source."""
    steps: int | None = None
    """Environment steps of training (default: what the environment usually needs)."""
    format: str = "minari"
    """Format of the data sets (minari, lerobot, parquet, npz, folder)."""
    seed: int = 0
    """Seed of training and recording."""
    overwrite: Overwrite = False
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Inspect:
    """Say what data files hold: sources, spaces, episodes, returns, missing columns, duplicates, and which learners they can feed."""

    paths: Positional[tuple[Path, ...]]
    """Files or folders of any readable format."""
    format: str | None = None
    """Format, when it should not be found out."""
    report: Path | None = None
    """Also write pictures and tables to this HTML file."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Convert:
    """Rewrite data sets in another format."""

    source: Positional[Path]
    """File or folder to read."""
    target: Positional[Path]
    """File or folder to write; must not exist."""
    to: str
    """Format to write (minari, lerobot, parquet, npz, folder)."""
    format: str | None = None
    """Format to read, when it should not be found out."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Data:
    """Make, inspect and convert data sets."""

    command: (
        Annotated[Make, subcommand("make")] | Annotated[Inspect, subcommand("inspect")] | Annotated[Convert, subcommand("convert")]
    )


@dataclass(frozen=True)
class Train:
    """Train a learner on data (--data, repeatable) or in an environment (--env)."""

    learner: Positional[str]
    """Name of a learner (polyact learners)."""
    data: Many = ()
    """Data file or folder; append @WEIGHT to set its share of a batch (logs/@2.0)."""
    env: str | None = None
    """Environment to train in, or with --data to evaluate in."""
    steps: int = 20_000
    """Gradient steps (with --data) or environment steps (with --env alone)."""
    batch_size: int | None = None
    """Rows of a batch (default: 256)."""
    envs: int | None = None
    """Environments side by side (with --env alone)."""
    update_ratio: float | None = None
    """Gradient steps per environment step (off-policy learners with --env alone)."""
    learning_starts: int | None = None
    """Random actions before the first update (off-policy learners with --env alone)."""
    buffer_size: int | None = None
    """Steps the replay buffer holds (off-policy learners with --env alone)."""
    seeds: int = 1
    """Policies to train, each from its own seed."""
    seed: int = 0
    """First seed."""
    out: Path | None = None
    """Folder of the run (default: runs/LEARNER-N)."""
    ema: float | None = None
    """Deploy the moving average of the weights with this decay, e.g. 0.999 (with --data)."""
    set: Many = ()
    """Setting of the learner, field=value (polyact learners NAME lists them)."""
    report_every: int | None = None
    """Steps between lines of the history."""
    evaluate_every: int | None = None
    """Steps between evaluations in --env."""
    checkpoint_every: int | None = None
    """Steps between checkpoints (default: the last, and where training is interrupted)."""
    resume: bool = False
    """Continue the run in --out from its newest checkpoint, bit for bit."""
    overwrite: Overwrite = False
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Eval:
    """Evaluate runs, paired: every policy meets the same initial states and disturbances."""

    runs: Positional[tuple[str, ...]] = ()
    """Folders of runs or of saved policies, 'random', or 'expert:NAME' for a scripted expert of the environment."""
    onnx: Many = ()
    """Also a policy that was exported to this ONNX file (polyact export)."""
    env: str | None = None
    """Environment (default: the one that the first run or file names)."""
    episodes: int = 64
    """Episodes of each policy."""
    seed: int = 1000
    """Seed of initial states and disturbances."""
    control_hz: float | None = None
    """Control rate in Hz: the world moves on while the policy computes."""
    latency: str | None = None
    """Seconds from observation to action, or 'measured' on this machine."""
    fallback: str = "hold"
    """What acts while nothing has arrived: hold, zero or chunk."""
    in_flight: int | None = None
    """Inferences that may overlap (default: as many as the latency needs; 1 when measured)."""
    latencies: str | None = None
    """Seconds apart by commas (0,0.05,0.1): adds the scores over latency to the report; needs --control-hz."""
    stochastic: bool = False
    """Keep the exploration of stochastic policies."""
    report: Path | None = None
    """Also write an HTML report to this file."""
    eval_info: Path | None = None
    """Also write LeRobot's eval_info.json to this file."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Serve:
    """Serve runs to robots over websockets, speaking openpi's protocol; SIGTERM ends it gracefully, SIGHUP reads the runs again."""

    runs: Positional[tuple[str, ...]]
    """Folders of runs or of saved policies, as FOLDER or NAME=FOLDER: the first at /, each at /NAME."""
    host: str = "127.0.0.1"
    """Address to listen at; one that lets other machines in needs an API key."""
    port: int = 8000
    """Port to listen at; 0 for any that is free."""
    api_key_file: Path | None = None
    """File with the key that clients must send (default: the variable POLYACT_API_KEY, if set)."""
    tls_cert: Path | None = None
    """Certificate chain (PEM), to serve over TLS."""
    tls_key: Path | None = None
    """Private key (PEM) of the certificate."""
    control_hz: float | None = None
    """Control rate of the robots in Hz: later answers than one interval are replaced by the fallback."""
    fallback: str = "hold"
    """What a late answer is replaced by: hold, zero or chunk; needs --control-hz."""
    window: float = 0.001
    """Seconds that a request waits for others to share its compiled call."""
    max_batch: int = 32
    """Requests that share one compiled call."""
    number: int = 0
    """Which of a run's policies to serve."""
    body: str | None = None
    """Which body of a policy that has several."""
    env: str | None = None
    """Environment whose spaces a policy without a body has (default: the one the run names)."""
    stochastic: bool = False
    """Keep the exploration of stochastic policies."""
    seed: int = 0
    """What the randomness of connections follows from, unless a client sends a seed."""
    max_connections: int = 256
    """Connections open at once."""
    max_message: int | None = None
    """Bytes of one message (default: twice what the largest observation needs)."""
    rate: float = 1000.0
    """Requests per second on one connection."""
    idle_timeout: float = 600.0
    """Seconds without a message after which a connection is closed."""
    queue: int = 256
    """Requests per run that may wait; what comes beyond is told that the server is overloaded."""
    reload: float | None = None
    """Seconds between looks at whether a run was written again; it is then served without dropping connections."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Export:
    """Write a policy for runtimes without polyact: as it acts, with memory and random numbers as inputs, and a description beside it."""

    run: Positional[Path]
    """Folder of a run with one seed, of one seed of a run (RUN/seed-0), or of a saved policy."""
    format: str = "onnx"
    """onnx, stablehlo (jax.export) or numpy (a Python file, for perceptrons)."""
    out: Path | None = None
    """File to write (default: the run's name, here)."""
    env: str | None = None
    """Environment whose spaces hold where the policy does not say its own."""
    body: str | None = None
    """Body to act with, of a policy that has several."""
    stochastic: bool = False
    """Keep the exploration of stochastic policies."""
    chunk: bool = False
    """Give out whole chunks of actions, not the first action of each (policies that plan chunks)."""
    execute: int | None = None
    """Play so many actions of a chunk before the next is planned (policies that plan chunks)."""
    control_hz: float | None = None
    """Control rate in Hz, for the description (default: what the environment says)."""
    overwrite: Overwrite = False
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Envs:
    """List the environments, or say what one is."""

    name: Positional[str | None] = None
    """An environment."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Learners:
    """List the learners, or the settings of one."""

    name: Positional[str | None] = None
    """A learner."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class Systems:
    """List the published systems, or show one: polyact systems show SLUG."""

    words: Positional[tuple[str, ...]] = ()
    """Nothing to list them, or 'show SLUG' for the card, the claims, their last verdicts and how to use one."""
    family: str | None = None
    """Only this family (offline, generative, online, language, agents, robots, society)."""
    json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class ClaimOf:
    """Run the experiments behind what systems claim, and say whether the claims hold."""

    slugs: Positional[tuple[str, ...]] = ()
    """Systems (polyact systems)."""
    family: str | None = None
    """All systems of a family."""
    all: bool = False
    """All systems."""
    seeds: int | None = None
    """Seeds of every arm (default: what the claim says for the scale)."""
    first_seed: int = 1000
    """First seed; seeds below 1000 are for tuning and are never recorded."""
    scale: str = "laptop"
    """smoke (only to see that it runs), laptop (the verdict) or paper (the paper's own benchmark, where it can be had)."""
    placebo: bool = False
    """Measure every rival against itself instead: the verdict must be 'not shown'."""
    record: bool = False
    """Add the verdicts to the record that the documentation shows."""
    json: Json = False
    debug: Debug = False


Leaf = Demo | Make | Inspect | Convert | Train | Eval | Export | Serve | Envs | Learners | Systems | ClaimOf

Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Data, subcommand("data")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Serve, subcommand("serve")]
    | Annotated[Envs, subcommand("envs")]
    | Annotated[Learners, subcommand("learners")]
    | Annotated[Systems, subcommand("systems")]
    | Annotated[ClaimOf, subcommand("claim")]
)


def parse(arguments: list[str]) -> Leaf:
    """The command that the arguments name; prints help or a usage error and exits where they name none."""
    command = tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="polyact",
        description="Learn from many behaviours; act in real time.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return command.command if isinstance(command, Data) else command
