"""A tiny model as a GGUF file, written by the gguf package."""

from pathlib import Path

import gguf
import numpy as np

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS = 56, 32, 2, 4, 2
TOKENS = ("<unk>", "<s>", "</s>", '!"', "#$", *map(chr, range(33, 127)))


def random_blocks(
    kind: gguf.GGMLQuantizationType, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """[rows, bytes] uint8: random blocks of a type that mean finite numbers below 100."""
    each, size = gguf.GGML_QUANT_SIZES[kind]
    needed, found = shape[0] * shape[1] // each, np.zeros((0, size), np.uint8)
    while len(found) < needed:
        blocks = rng.integers(0, 256, (4 * needed, size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            numbers = gguf.dequantize(blocks, kind)
        found = np.concatenate([found, blocks[(np.abs(numbers) < 100).all(1)]])
    return found[:needed].reshape(shape[0], -1)


def save_tiny_gguf(
    path: Path,
    kind: gguf.GGMLQuantizationType | None = None,
    *,
    hidden: int = HIDDEN,
    width: int = WIDTH,
    layers: int = LAYERS,
) -> dict[str, np.ndarray]:
    """Write a random LLaMA with a byte-level tokenizer; returns its tensors by their GGUF names.

    kind: type of the tensors of its FFNs, as blocks of bytes; None: float16.
    """
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(hidden // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(['! "', "# $"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(TOKENS), hidden), "output_norm": (hidden,)}
    shapes["output"] = (len(TOKENS), hidden)
    kv = hidden // HEADS * KV_HEADS
    for layer in range(layers):
        of = {
            "attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (hidden, hidden),
            "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, hidden),
            "ffn_gate": (width, hidden), "ffn_up": (width, hidden), "ffn_down": (hidden, width),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of.items()}
    tensors = {
        f"{name}.weight": (0.1 * rng.standard_normal(shape)).astype(
            np.float16 if len(shape) > 1 else np.float32
        )
        for name, shape in shapes.items()
    }
    if kind is not None:
        for name in tensors:
            if ".ffn_" in name and "norm" not in name:
                tensors[name] = random_blocks(kind, tensors[name].shape, rng)
    for name, values in tensors.items():
        blocks = values.dtype == np.uint8
        writer.add_tensor(name, values, raw_dtype=kind if blocks else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
