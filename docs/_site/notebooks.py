"""Notebooks as pages of the site: text as it is, code as fences; outputs are not stored."""

import json
from pathlib import Path


def notebook_page(path: Path) -> str:
    """A notebook as Markdown, with where to find the file."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    blocks = ["".join(c["source"]) for c in cells]
    shown = [
        text if c["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for c, text in zip(cells, blocks, strict=True)
        if text.strip()
    ]
    head, *rest = shown
    note = (
        f"!!! note\n\n    This page is the notebook `docs/notebooks/{path.name}`. A test runs it."
    )
    return "\n\n".join([head, note, *rest]) + "\n"
