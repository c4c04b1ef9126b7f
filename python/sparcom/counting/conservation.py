"""Conservation: every site saw every counted token once, and no neuron fired more often."""

from collections.abc import Collection, Sequence

import numpy as np

from sparcom.components import Site
from sparcom.errors import CountError


def check_conservation(
    sites: Sequence[Site],
    ids: Sequence[str],
    tokens: np.ndarray,
    neurons: np.ndarray,
    rows: np.ndarray,
    partial: Collection[int] = (),
) -> None:
    """Check that every site saw every counted token once, and that no neuron fired more often.

    Requires, for each instruction: rows == T at dense and shared sites, sum of rows == top_k * T at
    routed ones (at most that at partial ones), and 0 <= c <= rows of its bin.

    tokens: [n] T from the corpus side.
    neurons: [n, neurons] counts.
    rows: [n, bins of all sites], the rows that the kernel itself saw.
    partial: indices of sites of which this worker has only some experts.

    Raises CountError naming site, instruction and both numbers.
    """
    start_bin = start_neuron = 0
    for index, site in enumerate(sites):
        seen = rows[:, start_bin : start_bin + site.bins]
        fired = neurons[:, start_neuron : start_neuron + site.neurons]
        start_bin, start_neuron = start_bin + site.bins, start_neuron + site.neurons
        expected = tokens * max(site.top_k, 1)
        total = seen.sum(1, dtype=np.int64)
        wrong = np.flatnonzero(total > expected if index in partial else total != expected)
        if len(wrong):
            at = int(wrong[0])
            raise CountError(
                f"conservation: {site.name} saw {int(seen[at].sum())} rows of instruction "
                f"{ids[at]}, expected {int(expected[at])}; {len(wrong)} of {len(ids)} instructions "
                "are wrong there"
            )
        top = fired.reshape(len(ids), site.bins, site.width).max(2, initial=0)
        low = fired.min(1, initial=0)
        wrong = np.flatnonzero((top > seen).any(1) | (low < 0))
        if len(wrong):
            at = int(wrong[0])
            raise CountError(
                f"conservation: {site.name} counts {int(top[at].max())} firings of a neuron in "
                f"instruction {ids[at]} (lowest count {int(low[at])}), but saw "
                f"{seen[at].tolist()} rows"
            )


def check_signs_conserved(
    sites: Sequence[Site],
    ids: Sequence[str],
    neurons: np.ndarray,
    signs: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Check that the four combinations of signs are counts: none below 0.

    Requires 0 <= both <= min(gate, up) and gate + up - both <= rows of the bin.

    neurons, rows: as in `check_conservation`; signs: [2, n, neurons].
    Raises CountError naming site, instruction and the counts.
    """
    start_bin = start_neuron = 0
    for site in sites:
        shape = (len(ids), site.bins, site.width)
        at = slice(start_neuron, start_neuron + site.neurons)
        gate, up, both = (x[:, at].reshape(shape) for x in (neurons, *signs))
        seen = rows[:, start_bin : start_bin + site.bins, None]
        start_bin, start_neuron = start_bin + site.bins, at.stop
        wrong = (both < 0) | (both > np.minimum(gate, up)) | (gate + up - both > seen)
        if wrong.any():
            row, expert, unit = (int(v) for v in np.argwhere(wrong)[0])
            values = [int(x[row, expert, unit]) for x in (gate, up, both)]
            raise CountError(
                f"conservation: {site.name} counts gate, up and both positive {values} times in "
                f"{int(seen[row, expert, 0])} rows of instruction {ids[row]}"
            )
