"""Wilson's interval of a share."""

import numpy as np
from scipy.special import ndtri


def wilson(successes: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high): Wilson's 95 % interval of a share; (0, 1) if there were no trials.

    successes, trials: arrays that broadcast together.

    >>> [round(float(end), 3) for end in wilson(np.array(5), np.array(10))]
    [0.237, 0.763]
    """
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = ndtri(0.975)
    safe = np.maximum(n, 1.0)
    share = k / safe
    centre = (share + z**2 / (2 * safe)) / (1 + z**2 / safe)
    half = z / (1 + z**2 / safe) * np.sqrt(share * (1 - share) / safe + z**2 / (4 * safe**2))
    empty = n == 0
    low = np.where(empty, 0.0, np.clip(centre - half, 0.0, 1.0))
    return low, np.where(empty, 1.0, np.clip(centre + half, 0.0, 1.0))
