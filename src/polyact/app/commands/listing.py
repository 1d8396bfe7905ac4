"""`polyact envs` and `polyact learners`: what there is, and what can be set."""

from dataclasses import fields
from typing import Any

from polyact.app.arguments import Envs, Learners
from polyact.app.show import print_json, print_table, say
from polyact.envs import catalogue as environments
from polyact.learning import catalogue as learners


def run(command: Envs | Learners) -> None:
    if isinstance(command, Envs):
        _one_env(command) if command.name else _all_envs(command)
    else:
        _one_learner(command) if command.name else _all_learners(command)


def _all_envs(command: Envs) -> None:
    rows = [(name, environments.summary(name), ", ".join(environments.experts(name))) for name in environments.names()]
    prefixes = [(f"{prefix}:NAME", "an environment of that library, by its name", "") for prefix in environments.PREFIXES]
    if command.json:
        print_json(
            [{"name": name, "summary": text, "experts": [e for e in scripts.split(", ") if e]} for name, text, scripts in rows]
        )
        return
    print_table("Environments", ("name", "what it is", "scripted experts"), rows + prefixes)
    say("polyact envs NAME says more; polyact data make NAME makes data; polyact train sac --env NAME trains in it.")


def _one_env(command: Envs) -> None:
    assert command.name
    env = environments.make(command.name)
    facts = {
        "name": command.name,
        "observation": repr(env.observation_space),
        "action": repr(env.action_space),
        "horizon": env.horizon,
    }
    settings = {field.name: getattr(env, field.name) for field in _settings(env)}
    if command.json:
        print_json(facts | {"fields": {name: _plain(value) for name, value in settings.items()}})
        return
    print_table(command.name, ("", ""), list(facts.items())[1:])
    if settings:
        print_table("Fields", ("name", "value"), [(name, str(_plain(value))) for name, value in settings.items()])


def _settings(env: Any) -> list[Any]:
    try:
        return [field for field in fields(env) if field.init]
    except TypeError:  # a bridged environment has no fields of ours
        return []


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist() if value.size <= 16 else f"{value.dtype}{list(value.shape)}"
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _all_learners(command: Learners) -> None:
    rows = [
        (name, entry.summary, " and ".join(where for where, yes in (("data", entry.offline), ("env", entry.online)) if yes))
        for name, entry in learners.LEARNERS.items()
    ]
    if command.json:
        facts = [
            {"name": name, "summary": entry.summary, "offline": entry.offline, "online": entry.online, "needs": entry.needs}
            for name, entry in learners.LEARNERS.items()
        ]
        print_json(facts)
        return
    print_table("Learners", ("name", "what it is", "learns from"), rows)
    say("polyact learners NAME lists what --set can change.")


def _one_learner(command: Learners) -> None:
    assert command.name
    entry = learners.entry(command.name)
    settings = learners.fields_of(learners.learner(command.name))
    if command.json:
        print_json({"name": command.name, "needs": entry.needs, "settings": {n: _plain(v) for n, v in settings.items()}})
        return
    print_table(f"{command.name}: {entry.summary}", ("setting", "value"), [(n, str(_plain(v))) for n, v in settings.items()])
    say(f"Reads the columns {', '.join(entry.needs)}. Policies (--set policy=NAME): {', '.join(learners.POLICIES)}.")
    say("A setting's last word alone sets it everywhere: --set width=64 --set learning_rate=1e-3")
