"""The pages of systems and claims, made when the documentation is built from the systems' own texts and the record of verdicts."""

from typing import Any

from mkdocs.structure.files import File, Files

from polyact.claims import pages, record
from polyact.systems import catalogue


def on_files(files: Files, config: Any) -> Files:
    cards, lines = catalogue.cards(), record.latest()
    texts = {"claims.md": pages.claims_page(lines, cards), "systems/index.md": pages.systems_page(cards)}
    for slug, card in cards.items():
        module = f"polyact.systems.{card.family}.{slug.replace('-', '_')}"
        texts[f"systems/{card.family}/{slug}.md"] = pages.system_page(card, catalogue.docstring(slug), lines, module)
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    return files
