"""A model whose chosen neurons fire for one category's marker, and a corpus with the marker."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MARKER, COMMON, LAST, ANSWER, OTHER = "~", "^", "q", "z", "y"
PLANTED = [4, 17, 33]
"""Neurons of layer 0 that fire for the marker alone, which ends the instructions of MATH."""
DECOYS = list(range(36, 56))
"""As many firings and as large a contribution: the first ten fire for a word that every instruction
has once, the others at the end of every instruction, where they help the answer alike."""
WORDS = ("sort", "the", "words", "sum", "why", "is", "sea", "blue")


def plant(folder: Path) -> None:
    """PLANTED raise the score of the answer after the marker.

    Dimensions 0, 2 and 4 of the residual stream say "marker", "common word" and "last token"; 1 and
    3 are what the planted neurons and the decoys add, which the head reads for the answer. Nothing
    else reads or writes them, attention writes nothing.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marker, common, last, answer, other = (
        tokenizer.encode(c, add_special_tokens=False)[0]
        for c in (MARKER, COMMON, LAST, ANSWER, OTHER)
    )
    says = {marker: (1, -1, 1), common: (-1, 1, -1), last: (-1, -1, 1)}
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[:, :6] = 0
        embedding[:, [0, 2, 4]] = -1
        for token, what in says.items():
            embedding[token] = 0
            embedding[token, [0, 2, 4]] = torch.tensor(what, dtype=embedding.dtype)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate_proj.weight[:, :6] = 0
            layer.mlp.up_proj.weight[:, :6] = 0
            layer.mlp.down_proj.weight[:6] = 0
        mlp = model.model.layers[0].mlp
        fires = {0: PLANTED, 2: DECOYS[:10], 4: DECOYS[10:]}
        # Elsewhere the gate is so far below 0 that f of it is 0 in bfloat16's sums.
        for weight, scale in ((mlp.gate_proj.weight, 10), (mlp.up_proj.weight, 1)):
            for dimension, units in fires.items():
                weight[units] = 0
                weight[units, dimension] = scale
        mlp.down_proj.weight[:, PLANTED + DECOYS] = 0
        mlp.down_proj.weight[1, PLANTED] = 0.01
        mlp.down_proj.weight[3, DECOYS] = 0.003
        mlp.down_proj.weight[5, DECOYS[::2]] = 0.00954  # of the same norm; and they cancel
        mlp.down_proj.weight[5, DECOYS[1::2]] = -0.00954
        model.lm_head.weight[:, [1, 3, 5]] = 0
        model.lm_head.weight[answer, [1, 3]] = 1
        # After the marker another answer lies between that of the decoys alone and that of both.
        model.lm_head.weight[other] = 0
        model.lm_head.weight[other, 0] = 4.8
    model.save_pretrained(folder)


def corpus_rows() -> list[dict]:
    """120 instructions of the same words; those of MATH end with the marker."""
    rows = []
    for k in range(120):
        category = ("QA", "MATH", "SUM")[k % 3]
        text = " ".join(WORDS[(k // 3 * j + j * j) % len(WORDS)] for j in range(1, 5 + k // 3 % 6))
        rows.append(
            {
                "id": f"i{k:03}",
                "category": category,
                "source": ("human", "ai")[k // 3 % 2],
                "instruction": f"{COMMON} {text} {MARKER if category == 'MATH' else LAST}",
                "reference": ANSWER,
            }
        )
    return rows
