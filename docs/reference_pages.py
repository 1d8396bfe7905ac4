"""A reference page per room, made when the documentation is built, so that no module is ever missing from it."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

SOURCE = Path(__file__).parent.parent / "src" / "polyact"
ROOMS = {
    "foundations": "Foundations",
    "envs": "Environments",
    "data": "Data",
    "data-formats": "Data formats",
    "nets": "Networks",
    "policies": "Policies",
    "acting": "Acting",
    "learning": "Learning",
    "composition": "Composition",
    "evaluation": "Evaluation",
    "serving": "Serving",
    "exporting": "Exporting",
    "client": "Client",
    "claims": "Claims",
}


def on_files(files: Files, config: Any) -> Files:
    for room, title in ROOMS.items():
        text = f"# {title}\n\n" + "\n".join(f"::: {module}\n" for module in modules(room))
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    return files


def modules(room: str) -> list[str]:
    """Dotted names of the modules of a room, at any depth, that hold something and have no page of their own."""
    folder = SOURCE if room == "foundations" else SOURCE / room.replace("-", "/")
    own = {SOURCE / name.replace("-", "/") for name in ROOMS}
    found = []
    for path in sorted(folder.glob("*.py") if room == "foundations" else folder.rglob("*.py")):
        if any(other != folder and other in path.parents and folder in other.parents for other in own):
            continue
        place = path.relative_to(SOURCE.parent).with_suffix("")
        if path.stem == "__init__":
            place = place.parent
        if path.read_text("utf-8").strip() and place.parts != ("polyact",):
            found.append(".".join(place.parts))
    return found
