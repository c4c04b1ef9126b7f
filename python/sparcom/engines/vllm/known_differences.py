"""Where vLLM 0.32.0 is known to run another model than transformers does, on every device.

What vLLM does on purpose is not ours to change: the proof refuses such a model, and says why.
"""

_WINDOW = (
    "vLLM's sliding window is one token longer than transformers' (models/commandr.py and "
    "cohere2_moe.py: sliding_window + 1)"
)
KNOWN = {"cohere2": _WINDOW, "cohere2_moe": _WINDOW}
"""Model type -> what differs."""
