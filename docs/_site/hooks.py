"""What mkdocs calls: adds the pages that are made from the code, the notebooks and root files."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from notebooks import notebook_page
from reference_pages import cli_page, config_page

ROOT = Path(__file__).parents[2]
FROM_ROOT = {"CHANGELOG.md": "project/changelog.md", "CONTRIBUTING.md": "project/contributing.md",
             "SECURITY.md": "project/security.md"}  # fmt: skip


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add every generated page."""
    pages = {"reference/cli.md": cli_page(), "reference/config.md": config_page()}
    pages |= {to: (ROOT / source).read_text("utf-8") for source, to in FROM_ROOT.items()}
    images = ROOT / "docs" / "images" / "notebooks"
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{path.stem}.md"] = notebook_page(path, images)
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files
