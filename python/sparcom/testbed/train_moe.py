"""Train the test bed `tiny-moe`: a small Qwen2-MoE, really trained, whose routing is its own.

    python -m sparcom.testbed.train_moe          a few minutes on 2 cores
    sparcom run --model tiny-moe

A random model routes at random, so nothing about experts can be looked at in it. This one has
learnt the bundled instructions and their references: its loss is far below that of the best guess
without context (the unigram entropy), and its experts differ in load and in kind of instruction.
It is a test bed: it has seen half a megabyte of text and answers nothing.

The seed fixes data, weights and order; the last bits still depend on machine and thread count.
"""

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparcom.corpus.hexainst.bundled import BUNDLED
from sparcom.corpus.opening import load_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import make_prompts
from sparcom.corpus.schema import Instruction
from sparcom.models import TINY_MOE, tiny_moe_folder
from sparcom.shown_steps import shown_steps

VOCABULARY = 2048
TOP_K = 2
WINDOW = 128  # tokens of a training example
HELD_OUT = 10  # every tenth instruction is not trained on
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Figures:
    """What training reached.

    unigram: nats per held-out token of the best guess without context (training frequencies).
    train_loss: mean over the last tenth of the steps; held_out_loss: of the finished model.
    load_evenness: per layer, entropy of the experts' loads over its largest value; 1 is uniform.
    top_share: per layer, the share of tokens that hold the busiest expert.
    category_bits: per layer, information in bits that an expert gives about the category.
    """

    unigram: float
    train_loss: float
    held_out_loss: float
    load_evenness: list[float]
    top_share: list[float]
    category_bits: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default=BUNDLED, help="what to learn; every record needs a "
                        "reference")  # fmt: skip
    parser.add_argument("--out", type=Path, default=tiny_moe_folder(), help="model folder")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()
    corpus = load_corpus(arguments.corpus)
    figures = train(corpus, arguments.out, arguments.steps, arguments.seed)
    report(figures, arguments.out, time.perf_counter() - started)


def train(corpus: Sequence[Instruction], out: Path, steps: int, seed: int) -> Figures:
    """Train on a corpus and write the model folder, whole or not at all."""
    torch.manual_seed(seed)
    kept = [item for i, item in enumerate(corpus) if i % HELD_OUT]
    tokenizer = train_tokenizer([f"{item.text}\n{item.reference}" for item in kept])
    encoded = encode(tokenizer, corpus)
    train_ids = np.concatenate([ids for i, ids in enumerate(encoded) if i % HELD_OUT])
    held_out = [(item.category, ids) for item, ids in zip(corpus, encoded, strict=True)][::HELD_OUT]
    model = new_model(tokenizer)
    losses = fit(model, train_ids, steps, seed)
    held_out_loss, routed = evaluate(model, held_out)
    save(model, tokenizer, out)
    return Figures(
        unigram(train_ids, np.concatenate([ids for _, ids in held_out])),
        float(np.mean(losses[-max(1, steps // 10) :])),
        held_out_loss,
        *routing_figures(routed, [category for category, _ in held_out]),
    )


def train_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE of the texts: on so little text a small vocabulary is learnt better."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: Any, corpus: Sequence[Instruction]) -> list[np.ndarray]:
    """Token ids of each instruction, in its chat, with its reference and the end of it."""
    template = make_template("model", tokenizer)
    prompts = make_prompts(corpus, tokenizer, template=template, scope="all")
    return [np.asarray([*p.token_ids, tokenizer.eos_token_id]) for p in prompts]


def new_model(tokenizer: Any) -> Any:
    """A Qwen2-MoE of 4 million parameters, random."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=16,
        num_experts_per_tok=TOP_K,
        moe_intermediate_size=128,
        shared_expert_intermediate_size=256,
        intermediate_size=256,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        output_router_logits=True,
        # Enough that no layer falls back on two experts, too little to make the loads equal.
        router_aux_loss_coef=0.002,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen2MoeForCausalLM(config)


def fit(model: Any, ids: np.ndarray, steps: int, seed: int, batch: int = 24) -> list[float]:
    """Train on random windows of a stream of ids; returns the loss of every step."""
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    model.train()
    losses = []
    for _ in shown_steps(range(steps), steps):
        starts = generator.integers(0, len(ids) - WINDOW, batch)
        windows = torch.from_numpy(np.stack([ids[s : s + WINDOW] for s in starts]))
        output = model(input_ids=windows, labels=windows)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(output.loss.detach() - 0.002 * output.aux_loss.detach()))
    return losses


@torch.inference_mode()
def evaluate(
    model: Any, held_out: Sequence[tuple[str, np.ndarray]]
) -> tuple[float, list[np.ndarray]]:
    """(nats per token, routed counts [layers, experts] of each) of held-out instructions.

    held_out: (category, ids) each.
    """
    model.eval()
    nats, tokens, routed = 0.0, 0, []
    for _, ids in held_out:
        row = torch.from_numpy(ids)[None]
        output = model(input_ids=row)
        logits = output.logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
        tokens += len(ids) - 1
        chosen = [layer.topk(TOP_K, dim=-1).indices.flatten() for layer in output.router_logits]
        experts = model.config.num_experts
        routed.append(np.stack([np.bincount(c.numpy(), minlength=experts) for c in chosen]))
    return nats / tokens, routed


def unigram(train_ids: np.ndarray, held_out: np.ndarray) -> float:
    """Nats per held-out token of the training frequencies (one added to each)."""
    counts = np.bincount(train_ids, minlength=VOCABULARY) + 1
    return float(-np.log(counts / counts.sum())[held_out].mean())


def routing_figures(
    routed: Sequence[np.ndarray], categories: Sequence[str]
) -> tuple[list[float], list[float], list[float]]:
    """(load evenness, top share, category bits) of each layer; see `Figures`.

    routed: [layers, experts] routed counts of each instruction.
    """
    names = sorted(set(categories))
    counts = np.zeros((len(names), *routed[0].shape))
    for category, one in zip(categories, routed, strict=True):
        counts[names.index(category)] += one / one.sum(1, keepdims=True)
    joint = counts / counts.sum((0, 2), keepdims=True)  # [categories, layers, experts]
    load = joint.sum(0)
    apart = np.where(joint > 0, joint.sum(2, keepdims=True) * load, 1)
    bits = joint * np.log2(np.where(joint > 0, joint, 1) / apart)
    entropy = -np.where(load > 0, load * np.log(np.where(load > 0, load, 1)), 0).sum(1)
    return (
        (entropy / np.log(load.shape[1])).round(3).tolist(),
        (TOP_K * load.max(1)).round(3).tolist(),
        bits.sum((0, 2)).round(3).tolist(),
    )


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write bf16 safetensors, config and tokenizer to a folder, which appears when whole."""
    building = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    building.mkdir(parents=True)
    try:
        model.config.output_router_logits = False
        model.to(torch.bfloat16).save_pretrained(building)
        tokenizer.save_pretrained(building)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def report(figures: Figures, out: Path, seconds: float) -> None:
    """Print what training reached."""
    print(f"{TINY_MOE}: {out}, made in {seconds:.0f} s")
    print(f"loss, nats per token: unigram {figures.unigram:.3f}, train {figures.train_loss:.3f}, "
          f"held out {figures.held_out_loss:.3f}")  # fmt: skip
    print(f"routing per layer: evenness of loads {figures.load_evenness} (1: uniform), busiest "
          f"expert's share of tokens {figures.top_share}, bits about the category "
          f"{figures.category_bits}")  # fmt: skip


if __name__ == "__main__":
    main()
