"""Where HexaInst lies: the half that comes with SPARCOM, and the corpus that was built last."""

from importlib.resources import files
from pathlib import Path

from sparcom.models import cache_dir

HEXAINST = "hexainst"
BUNDLED = "hexainst-ai"

FOLDERS = {
    BUNDLED: "hexainst",
    "hexainst-matched": "matched",
    "hexainst-matched-paraphrased": "matched_paraphrased",
    "plain-text": "plain_text",
}
"""Names of the corpora that come with SPARCOM, and their folders below data/."""


def bundled_folder(name: str = BUNDLED) -> Path:
    """The folder of a corpus that comes with SPARCOM."""
    return Path(str(files("sparcom.corpus.hexainst") / "data" / FOLDERS[name]))


def built_folder() -> Path:
    """Where `build_corpus("hexainst")` writes HexaInst unless told otherwise."""
    return cache_dir() / "corpora" / HEXAINST
