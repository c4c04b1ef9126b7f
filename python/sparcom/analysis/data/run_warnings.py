"""What a reader must know of a run itself: what is missing, what was cut, what has no pair."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparcom.analysis.data.labels import Labels
from sparcom.config import stored
from sparcom.store import Run


def run_warnings(
    run: Run, table: pa.Table, labels: Labels, sampled: int, by_prompt: bool
) -> list[str]:
    """Warnings about instructions, categories and pairs.

    table: of the counted instructions, with the column truncated; labels: of the same.
    sampled: instructions whose pairs are taken, of a run that retains its sets.
    by_prompt: the length bins are those of the prompts, although the run generates.
    """
    out, counted, total = [], len(labels.ids), run.manifest["corpus"]["instructions"]
    if failed := len(run.store.results.failures()):
        out.append(f"{failed} instructions failed and are left out")
    if skipped := run.manifest.get("skipped_rows", {}).get("count"):
        out.append(f"{skipped} bad rows of the corpus were left out")
    if cut := pc.sum(table["truncated"]).as_py():
        out.append(f"{cut} prompts were cut to the model's context")
    if run.manifest["status"] != "complete":
        out.append(
            f"the run is not complete: {counted} of {total} instructions are counted; finish it "
            "with --resume"
        )
    elif counted < total:
        out.append(f"{total - counted} of {total} instructions were set aside")
    if not run.store.results.parts("sets"):
        out.append("the run retains only its profile: nothing that looks at pairs of instructions")
    elif sampled < counted:
        out.append(
            f"pairs are taken among a sample of {sampled} of {counted} instructions; prevalence, "
            "generality and specificity use all of them"
        )
    if by_prompt:
        out.append(
            "the length bins are those of the prompts: differences in the number of generated "
            "tokens are not controlled"
        )
    asked = stored(run.manifest["config"]).get("max_tokens")
    if asked and (short := int((labels.tokens < asked).sum())):
        out.append(
            f"{short} of {counted} instructions are shorter than the {asked} tokens counted of "
            "each, so that length is not quite the same for all"
        )
    return out + _category_warnings(labels)


def _category_warnings(labels: Labels) -> list[str]:
    count = np.bincount(labels.codes, minlength=len(labels.categories))
    out = [
        f"category {name} has {size} instruction(s): no pair within it"
        for name, size in zip(labels.categories, count, strict=True)
        if size < 2
    ]
    if (count > 0).sum() < 2:
        out.append("one category only: nothing to compare between categories")
    return out
