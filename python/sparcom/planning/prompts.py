"""The prompts of a config, made without reading a weight."""

from collections.abc import Iterator, Sequence
from typing import Any

from sparcom.components import ComponentSpace
from sparcom.config import RunConfig
from sparcom.corpus.opening import open_corpus
from sparcom.corpus.prompts.chat_template import make_template
from sparcom.corpus.prompts.prompts import Prompt, make_prompts
from sparcom.corpus.reading.problems import ProblemLog
from sparcom.corpus.schema import Instruction
from sparcom.engines.base import EngineOptions
from sparcom.errors import InputError
from sparcom.models import resolve_model
from sparcom.planning.options import context_of

Part = tuple[list[Instruction], list[Prompt]]


class PromptMaker:
    """Makes the prompts of a config, and knows the model's components.

    skipped: bad rows that the last reading of the corpus left out.
    """

    def __init__(self, config: RunConfig, options: EngineOptions) -> None:
        from sparcom.engines.transformers.loading import read_model

        self._model = read_model(options)
        self.space: ComponentSpace = self._model.space
        self.skipped = ProblemLog()
        self._config, self._context = config, context_of(options, self._model.config)
        self._tokenizer = _tokenizer_of(options.model, config.trust_remote_code)
        self._template = self._make_template()

    def changed(self, config: RunConfig) -> "PromptMaker":
        """A maker of the same model and tokenizer for another config."""
        other = object.__new__(PromptMaker)
        vars(other).update(vars(self), _config=config, skipped=ProblemLog())
        other._template = other._make_template()
        return other

    def prompts(self, instructions: Sequence[Instruction]) -> list[Prompt]:
        """The prompts of instructions, in their order.

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
        )
        self._model.check_prompts(prompts)
        return prompts

    def parts(self) -> Iterator[Part]:
        """The corpus of the config, a part at a time."""
        config, part = self._config, []
        self.skipped = log = ProblemLog()
        for item in open_corpus(config.corpus, config.reading(), log):
            part.append(item)
            if len(part) == config.part_size:
                yield part, self.prompts(part)
                part = []
        if part:
            yield part, self.prompts(part)

    def _make_template(self) -> Any:
        config = self._config
        _, _, other = config.template.partition("from:")
        donor = _tokenizer_of(resolve_model(other), config.trust_remote_code) if other else None
        return make_template(config.template, self._tokenizer, config.system, donor, config.bos)


def _tokenizer_of(model: str, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"model {model}: its tokenizer cannot be read: {reason}") from error
