"""Resample ablation: a neuron's h is taken from another instruction, the donor.

    h at position p of an instruction   <-   h at position (p - a + b) mod N of its donor

a, b: where the answer begins in the instruction and in the donor; N: tokens of the donor. So
prompts are aligned at their ends and answers at their starts; where the donor has no such token it
goes round. A routed neuron takes the first token from there on, going round, that the donor's
router gave to its expert; if there is none, h is 0.

Resample ablation: Chan et al. 2022 (causal scrubbing); Conmy et al. 2023 (arXiv 2304.14997).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparcom.components import Site
from sparcom.corpus.prompts.prompts import Prompt
from sparcom.engines.transformers.engine import Part, TransformersEngine
from sparcom.errors import InputError

MOST_BYTES = 1 << 32
"""Bytes of the donors' h that are kept."""


@dataclass(frozen=True)
class Donors:
    """Whose h takes the place of an instruction's own.

    prompts: the donors, with their answers where they have any.
    of: id of an instruction -> index into `prompts`.
    """

    prompts: tuple[Prompt, ...]
    of: Callable[[str], int]


def draw(seed: int, name: str, choices: Sequence[int] | np.ndarray) -> int:
    """One of several donors for the instruction called `name`: the same whatever else is read.

    >>> draw(0, "math-01", [3, 5, 8]) == draw(0, "math-01", [3, 5, 8])
    True
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(digest, np.uint32).tolist()])
    return int(choices[int(rng.integers(len(choices)))])


def donors_of(prompts: Sequence[Prompt], categories: Sequence[str], seed: int) -> Donors:
    """Donors drawn by seed: each instruction's is one of another category than its own; a text that
    is not among them (plain text) takes any.

    categories: of each prompt.
    """
    own = {prompt.id: category for prompt, category in zip(prompts, categories, strict=True)}

    def of(name: str) -> int:
        others = [k for k, category in enumerate(categories) if category != own.get(name)]
        return draw(seed, name, others)

    return Donors(tuple(prompts), of)


class DonorValues:
    """h of donors at every token, and the tokens of the pass under way that take them.

    engine: with nothing ablated. sites: indices of those whose h is kept.
    Raises InputError if that takes more than `MOST_BYTES`.
    """

    def __init__(self, engine: TransformersEngine, donors: Donors, sites: Sequence[int]) -> None:
        self._donors, self._device = donors, engine.device
        self._starts = np.cumsum([0, *(len(p.token_ids) for p in donors.prompts)])
        self._at = torch.zeros(0, dtype=torch.int64, device=engine.device)
        whole, dtype = engine.space.sites, engine.model.dtype
        tokens = int(self._starts[-1])
        of_token = sum(whole[at].width * max(whole[at].top_k, 1) for at in sites)
        if (needed := tokens * of_token * dtype.itemsize) > MOST_BYTES:
            raise InputError(
                f"ablate: resample: h of {tokens:,} tokens of donors takes {needed / 1e9:.1f} GB, "
                f"more than {MOST_BYTES / 1e9:.1f}; take fewer or shorter ones (--limit, "
                "--answer-tokens)"
            )
        self._sites = {at: _SiteValues(whole[at], self._starts) for at in sites}
        self._read(engine)

    def begin(self, parts: Sequence[Part], rows: int) -> None:
        """A pass begins (`TransformersEngine.before_pass`)."""
        donors = [self._donors.of(prompt.id) for prompt, _, _ in parts]
        shifts = [self._donors.prompts[d].answer_at - prompt.answer_at
                  for d, (prompt, _, _) in zip(donors, parts, strict=True)]  # fmt: skip
        self._place(parts, rows, donors, shifts)

    def change(self, site: int, chosen: Tensor) -> "_Give":
        """What gives h of the donors to some neurons of a site; chosen: [experts or 1, width]."""
        return _Give(self, self._sites[site], chosen.to(self._device))

    def rows_of(self, token: Tensor | None) -> Tensor:
        """[rows] which token of the donors each row takes, counted through all of them; -1: none.

        token: [rows] rows of the pass, or -1; None: all of them.
        """
        if token is None:
            return self._at
        return torch.where(token >= 0, self._at[token.clamp(min=0)], -1)

    def _read(self, engine: TransformersEngine) -> None:
        prompts, recorder = self._donors.prompts, engine.counting()
        recorder.ablate({}, {at: _Keep(self, values) for at, values in self._sites.items()})
        try:
            for one in engine.plan([len(p.token_ids) for p in prompts]):
                held = [prompts[i] for i in one.prompts]
                parts = [(prompt, 0, len(prompt.token_ids)) for prompt in held]
                self._place(parts, one.rows, one.prompts, [0] * len(held))
                engine.forward(held, one)
                recorder.discard()
        finally:
            recorder.ablate({})
        for values in self._sites.values():
            values.finish()

    def _place(
        self, parts: Sequence[Part], rows: int, donors: Sequence[int], shifts: Sequence[int]
    ) -> None:
        at, start = np.full(rows, -1, np.int64), 0
        for (_, first, n), donor, shift in zip(parts, donors, shifts, strict=True):
            begin, length = self._starts[donor], self._starts[donor + 1] - self._starts[donor]
            at[start : start + n] = begin + (np.arange(first, first + n) + shift) % length
            start += n
        self._at = torch.from_numpy(at).to(self._device)


class _SiteValues:
    """h of one site at the donors' tokens.

    values: [rows, width], and a row of zeros after them. row: [tokens, experts or 1] int64, the row
    that each token takes, the last where it takes none.
    """

    values: Tensor
    row: Tensor

    def __init__(self, site: Site, starts: np.ndarray) -> None:
        self._site, self._starts = site, starts
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(self, token: Tensor, expert: Tensor, h: Tensor) -> None:
        """token, expert: [rows]; h: [rows, width]."""
        self._kept.append((token, expert, h))

    def finish(self) -> None:
        """All donors are read."""
        token, expert, values = (torch.cat(part) for part in zip(*self._kept, strict=True))
        self._kept.clear()
        self.values = torch.cat([values, values.new_zeros(1, values.shape[1])])
        rows = np.full((int(self._starts[-1]), self._site.bins), -1, np.int64)
        rows[token.cpu().numpy(), expert.cpu().numpy()] = np.arange(len(token))
        for begin, end in zip(self._starts, self._starts[1:], strict=False):
            rows[begin:end] = _next_known(rows[begin:end])
        self.row = torch.from_numpy(np.where(rows < 0, len(token), rows)).to(token.device)


def _next_known(rows: np.ndarray) -> np.ndarray:
    """[tokens, experts]: where it is -1, the next one below that is not, going round.

    >>> _next_known(np.array([[-1], [7], [-1]])).tolist()
    [[7], [7], [7]]
    """
    n = len(rows)
    twice = np.concatenate([rows, rows])
    place = np.where(twice >= 0, np.arange(2 * n)[:, None], 2 * n - 1)  # the last is -1 or right
    nearest = np.minimum.accumulate(place[::-1], 0)[::-1][:n]
    out: np.ndarray = np.take_along_axis(twice, nearest, 0)
    return out


class _Keep:
    """Keeps h of the donors that are read, and changes nothing."""

    def __init__(self, of: DonorValues, values: _SiteValues) -> None:
        self._of, self._values = of, values

    def __call__(
        self, h: Tensor, gate: Tensor, token: Tensor | None, expert: Tensor | None
    ) -> None:
        """As `counting.changes.Change`."""
        at = self._of.rows_of(token)
        held = at >= 0
        experts = torch.zeros_like(at) if expert is None else expert.long()
        self._values.keep(at[held], experts[held], h[held])


class _Give:
    """Gives h of the donors to chosen neurons."""

    def __init__(self, of: DonorValues, values: _SiteValues, chosen: Tensor) -> None:
        self._of, self._values, self._chosen = of, values, chosen

    def __call__(
        self, h: Tensor, gate: Tensor, token: Tensor | None, expert: Tensor | None
    ) -> None:
        """As `counting.changes.Change`."""
        at = self._of.rows_of(token)
        experts = torch.zeros_like(at) if expert is None else expert.clamp(min=0).long()
        given = self._values.values[self._values.row[at.clamp(min=0), experts]]
        chosen = self._chosen[experts] & (at >= 0)[:, None]
        h.copy_(torch.where(chosen, given, h))
