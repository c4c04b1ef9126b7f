"""The prompts of a config, made without reading a weight."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.corpus.checking.show import Token, show
from sparcom.corpus.opening import open_corpus
from sparcom.corpus.prompts import rendering
from sparcom.corpus.prompts.chat_template import PromptTemplate, make_template
from sparcom.corpus.prompts.date import parse_date
from sparcom.corpus.prompts.kept_tokenizer import KeptTokenizer
from sparcom.corpus.prompts.prompts import Prompt, make_prompts
from sparcom.corpus.prompts.tokenizer import load_tokenizer
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import Instruction
from sparcom.engines.base import EngineOptions
from sparcom.models import resolve_model
from sparcom.planning.kept_model import read_model, read_tokenizer

Part = tuple[list[Instruction], list[Prompt]]


class PromptMaker:
    """Makes the prompts of a config, and knows the model's components.

    space, layers: of the model; some layers may have no FFN, and so no component.
    skipped: bad rows, and instructions without a prompt, of the last reading of the corpus.
    """

    def __init__(self, config: RunConfig, options: EngineOptions) -> None:
        if config.template not in ("plain", "raw"):
            rendering.start()
        self._model, self._context = read_model(options)
        self.space: ComponentSpace = self._model.space
        self.layers: int = self._model.layers
        self.skipped = ProblemLog()
        self._config, self._path = config, options.model
        self._tokenizer = read_tokenizer(options.model, trust_remote_code=config.trust_remote_code)
        self._template = self._make_template()

    def changed(self, config: RunConfig) -> "PromptMaker":
        """A maker of the same model and tokenizer for another config."""
        other = object.__new__(PromptMaker)
        vars(other).update(vars(self), _config=config, skipped=ProblemLog())
        other._template = other._make_template()
        return other

    def prompts(
        self, instructions: Sequence[Instruction], log: ProblemLog | None = None
    ) -> list[Prompt]:
        """The prompts of instructions, in their order (see `make_prompts`).

        Raises InputError for token ids that the model has no embedding for.
        """
        prompts = make_prompts(
            instructions,
            self._tokenizer,
            template=self._template,
            scope=self._config.scope,
            max_tokens=self._config.max_tokens,
            context=self._context,
            truncate=self._config.truncate,
            generate=self._config.generate,
            log=log,
        )
        self._model.check_prompts(prompts)
        return prompts

    def tokens(self, instruction: Instruction, prompt: Prompt) -> tuple[Token, ...]:
        """The tokens of a prompt that `prompts` made of an instruction, with their text."""
        return show(instruction, prompt, self._whole_tokenizer, self._template).tokens

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self._whole_tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    @cached_property
    def _whole_tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        if not isinstance(self._tokenizer, KeptTokenizer):
            return self._tokenizer
        return load_tokenizer(self._path, trust_remote_code=self._config.trust_remote_code)

    def parts(self, size: int | None) -> Iterator[Part]:
        """The corpus of the config, `size` instructions at a time; None: all at once.

        Raises InputError after the last part: it names every bad row and every instruction without
        a prompt, if the config does not skip them.
        """
        self.skipped = log = ProblemLog()
        pairs, none = self._pairs(size, log), True
        while part := list(islice(pairs, size)):
            none = False
            yield [item for item, _ in part], [prompt for _, prompt in part]
        if log.count and (none or self._config.on_error == "stop"):
            raise log.error()

    def _pairs(self, size: int | None, log: ProblemLog) -> Iterator[tuple[Instruction, Prompt]]:
        """Each instruction that has a prompt, with it; the log takes bad rows and the others."""
        reading = replace(self._config.reading(), on_error="skip")
        items = iter(open_corpus(self._config.corpus, reading, log))
        while chunk := list(islice(items, size)):
            made = {prompt.id: prompt for prompt in self.prompts(chunk, log)}
            yield from ((item, made[item.id]) for item in chunk if item.id in made)

    def _make_template(self) -> PromptTemplate:
        config = self._config
        trust = config.trust_remote_code
        _, _, other = config.template.partition("from:")
        donor = read_tokenizer(resolve_model(other), trust_remote_code=trust) if other else None
        return make_template(
            config.template,
            self._tokenizer,
            system=config.system,
            donor=donor,
            bos=config.bos,
            date=parse_date(config.date) if config.date else None,
        )


def prompts_of(
    maker: PromptMaker, config: RunConfig, items: Sequence[Instruction], **changes: Any
) -> list[Prompt]:
    """Prompts of a run's instructions as its config makes them, but for `changes`; what the model
    reads after the last counted token, which changes nothing, is cut off."""
    rule = replace(config, **{"generate": 0, "max_tokens": None, **changes})
    made = maker.changed(rule).prompts(items)
    return [replace(one, token_ids=one.token_ids[: one.counted[-1][1]]) for one in made]
