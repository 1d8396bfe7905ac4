"""`polyact data convert`: the same sources in another format."""

from polyact.app.arguments import Convert
from polyact.app.show import print_json, say
from polyact.data.formats import read, write


def run(command: Convert) -> None:
    sources = read(command.source, command.format)
    write(sources, command.target, command.to)
    facts = [{"name": s.name, "episodes": s.episodes.count, "steps": s.episodes.steps} for s in sources]
    if command.json:
        print_json({"written": str(command.target), "format": command.to, "sources": facts})
        return
    for fact in facts:
        say(f"{fact['name']}: {fact['episodes']} episodes, {fact['steps']} steps")
    say(f"Written to {command.target} as {command.to}.")
