"""Notebooks as pages of the site: text as it is, code as fences.

Outputs are not stored. A picture that a run of the notebook drew is shown under its cell if it lies
in docs/images/notebooks as NAME-1.png, NAME-2.png, ...
"""

import json
from pathlib import Path


def notebook_page(path: Path, images: Path) -> str:
    """A notebook as Markdown, with where to find the file."""
    blocks: list[str] = []
    drawn = 0
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(text)
            continue
        blocks.append(f"```python\n{text}\n```")
        if "plt.show()" in text:
            drawn += 1
            if (picture := images / f"{path.stem}-{drawn}.png").is_file():
                blocks.append(f"![What the cell draws](../images/notebooks/{picture.name})")
    source = f"!!! note\n\n    This page is `docs/notebooks/{path.name}`, which a test runs."
    return "\n\n".join([blocks[0], source, *blocks[1:]]) + "\n"
