"""`polyact serve`: trained runs as a service for robots, until a signal ends it."""

import sys
from pathlib import Path
from typing import Any

from polyact import cache, saving
from polyact.app import runs
from polyact.app.arguments import Serve
from polyact.app.show import print_json, say
from polyact.envs import catalogue
from polyact.errors import PolyactError, SavedError
from polyact.policies.base import Policy, greedy
from polyact.policies.fitting import bodies
from polyact.policies.multibody import MultiBody
from polyact.serving.hosted import Offer, Options, Source
from polyact.serving.limits import Limits, read_key, tls
from polyact.serving.logs import to_stderr
from polyact.serving.running import run as run_server
from polyact.serving.server import Server
from polyact.spaces import Space

FACTS = ("learner", "env", "steps", "seed", "number", "data")  # of a policy's provenance, told to clients


def run(command: Serve) -> None:
    cache.enable()
    options = Options(command.control_hz, command.fallback, command.window, command.max_batch, command.seed)
    limits = Limits(command.max_connections, command.max_message, command.rate, command.idle_timeout, command.queue)
    server = Server(
        _sources(command),
        options,
        limits,
        host=command.host,
        port=command.port,
        key=read_key(command.api_key_file),
        tls=tls(command.tls_cert, command.tls_key),
        reload=command.reload,
    )
    to_stderr()
    run_server(server, lambda: _announce(server, command.json))


def _announce(server: Server, as_json: bool) -> None:
    address = f"{'wss' if server.tls else 'ws'}://{f'[{server.host}]' if ':' in server.host else server.host}:{server.port}"
    addresses = {name: f"{address}/{name}" for name in server.runs}
    if as_json:
        print_json({"address": address, "runs": addresses})
    else:
        for name, at in addresses.items():
            say(f"{name}: {at}")
    sys.stdout.flush()


def _sources(command: Serve) -> dict[str, Source]:
    if not command.runs:
        raise PolyactError("serve needs at least one folder of a run or of a saved policy")
    sources = {}
    for text in command.runs:
        name, _, folder = text.rpartition("=")
        path = Path(folder)
        name = name or path.resolve().name
        if name in sources:
            raise PolyactError(f"two runs are called '{name}'; name one with NAME=FOLDER")
        if "/" in name or name in ("healthz", "readyz", "metrics"):
            raise PolyactError(f"a run can't be called '{name}'; name it with NAME=FOLDER")
        sources[name] = Source(lambda path=path: _offer(path, command), lambda path=path: _stamp(path))
    return sources


def _stamp(path: Path) -> Any:
    """Changes when the run is written again; its description is written last."""
    for file in (path / saving.DESCRIPTION, path / "run.json"):
        if file.exists():
            found = file.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _offer(path: Path, command: Serve) -> Offer:
    folder = path if (path / saving.DESCRIPTION).exists() else _seed_folder(path, command.number)
    policy, known = saving.load(folder, Policy), saving.read_provenance(folder)  # pyright: ignore[reportArgumentType]
    if isinstance(policy, MultiBody):
        policy = policy.for_body(command.body)
    elif command.body is not None:
        raise PolyactError(f"--body has no effect: the policy in {path} has one body")
    observation_space, action_space = _spaces(policy, command.env or known.get("env"), path)
    facts = {"provenance": {name: known[name] for name in FACTS if known.get(name) is not None}}
    return Offer(policy if command.stochastic else greedy(policy), observation_space, action_space, facts)


def _seed_folder(path: Path, number: int) -> Path:
    seeds = runs.read(path).facts["seeds"]
    if not 0 <= number < seeds:
        raise SavedError(f"{path} holds the policies 0 .. {seeds - 1}, not number {number}")
    return path / f"seed-{number}"


def _spaces(policy: Policy, env: str | None, path: Path) -> tuple[Space, Space]:
    """Of the policy's body, or of the environment where it has none."""
    found = {(body.observation_space, body.action_space) for body in bodies(policy)}
    if len(found) == 1:
        return found.pop()
    if env is None:
        raise PolyactError(f"the policy in {path} does not say what it observes; name its environment with --env")
    world = catalogue.make(env)
    return world.observation_space, world.action_space
