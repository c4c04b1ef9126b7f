"""`sparcom corpus ...`: build a corpus, check it, describe it, show one of its prompts."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sparcom.cli.renamed import add_renamed
from sparcom.corpus.schema import CATEGORIES, parse_categories

Result = tuple[Any, int]


def add_corpus_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the subcommands; `add(name, handler, help)` makes the parser of one."""
    check = add("check", _check, "report what is wrong with a corpus")
    stats = add("stats", _stats, "categories, sources, lengths and duplicates of a corpus")
    stats.add_argument("--near", type=float, default=0.8, metavar="SIMILARITY",
                       help="word 3-gram Jaccard of near-duplicates (default: 0.8)")  # fmt: skip
    show = add("show", _show, "show a prompt as the model reads it, with the counted tokens marked")
    for parser in (check, stats, show):
        parser.add_argument("corpus" if parser is not show else "--corpus", default="hexainst",
                            help="'hexainst', a file, a folder or hub:OWNER/NAME")  # fmt: skip
        add_reading(parser)
    show.add_argument("id", help="id of the instruction")
    _add_prompting(show)
    build = add("build", _build, "build HexaInst, or the corpus of a recipe")
    build.add_argument("recipe", nargs="?", default="hexainst", help="'hexainst' or a TOML file")
    build.add_argument("--out", help="folder (default, for hexainst: where --corpus finds it)")
    build.add_argument("--half", choices=("both", "human", "ai"), default="both")
    build.add_argument("--human", metavar="DIR", help="a ready-made human half, in our schema")
    build.add_argument("--mirror", metavar="DIR", help="the sources' files, instead of the hub")
    build.add_argument("--seed", type=int, help="of the draw (default: the recipe's)")
    build.add_argument("--missing", choices=("stop", "fill"), default="stop",
                       help="if a source cannot be read: stop, or fill its place")  # fmt: skip
    build.add_argument("--overwrite", action="store_true", help="replace what was built there")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a corpus is read."""
    parser.add_argument("--categories", default=",".join(CATEGORIES), metavar="A,B,...",
                        help="allowed categories, or 'any' (default: HexaInst's)")  # fmt: skip
    parser.add_argument("--map", action="append", default=[], metavar="OURS=THEIRS",
                        help="take a field from another one")  # fmt: skip
    parser.add_argument("--fill", action="append", default=[], metavar="OURS=TEXT",
                        help="give a field the same text in every row")  # fmt: skip
    add_renamed(parser, "--set", "--fill")
    parser.add_argument("--records", metavar="FIELD",
                        help="the field of a JSON object that holds the records")  # fmt: skip
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop",
                        help="bad rows: stop, or leave them out")  # fmt: skip
    parser.add_argument("--max-problems", type=int, default=20, metavar="N",
                        help="bad rows that are named (default: 20)")  # fmt: skip
    parser.add_argument(
        "--rejects", metavar="FILE", help="write the problems of all bad rows there"
    )


def _add_prompting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="default", help="whose tokenizer and template to use")
    parser.add_argument("--trust-remote-code", action="store_true",
                        help="run code that comes with the tokenizer")  # fmt: skip
    parser.add_argument("--template", default="model",
                        help="what wraps the text: model, plain, raw or from:MODEL")  # fmt: skip
    parser.add_argument("--system", help="system prompt")
    parser.add_argument("--date", metavar="YYYY-MM-DD",
                        help="what a template takes for today (default: today)")  # fmt: skip
    parser.add_argument("--bos", choices=("auto", "always", "never"), default="auto")
    parser.add_argument("--scope", default="instruction")
    parser.add_argument("--max-tokens", type=int, metavar="L")


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[Any]:
    """The corpus that the arguments name, for streaming."""
    from sparcom.corpus.opening import open_corpus
    from sparcom.corpus.reading.corpus import ReadOptions
    from sparcom.corpus.reading.fields import parse_fields
    from sparcom.corpus.reading.problems import ProblemLog
    from sparcom.corpus.reading.rejects import open_rejects

    options = ReadOptions(
        parse_categories(arguments.categories),
        fields=parse_fields(arguments.map, arguments.fill),
        on_error=arguments.on_error,
        records=arguments.records,
    )
    corpus = open_corpus(arguments.corpus, options, ProblemLog(arguments.max_problems))
    with ExitStack() as stack:
        if arguments.rejects:
            corpus.log.sink = stack.enter_context(open_rejects(arguments.rejects, corpus))
        yield corpus


def _result(arguments: argparse.Namespace, report: Any, code: int = 0) -> Result:
    return (report.to_json() if arguments.json else report.render()), code


def _check(arguments: argparse.Namespace) -> Result:
    from sparcom.corpus.checking.check import check

    with _opened(arguments) as corpus:
        report = check(corpus, _ticker(arguments))
    return _result(arguments, report, 0 if report.ok or arguments.on_error == "skip" else 2)


def _stats(arguments: argparse.Namespace) -> Result:
    from sparcom.corpus.checking.stats import stats

    with _opened(arguments) as corpus:
        return _result(arguments, stats(corpus, arguments.near, _ticker(arguments)))


def _show(arguments: argparse.Namespace) -> Result:
    from sparcom.corpus.checking.show import find_instruction, show
    from sparcom.corpus.prompts.chat_template import make_template
    from sparcom.corpus.prompts.date import parse_date
    from sparcom.corpus.prompts.prompts import make_prompts
    from sparcom.corpus.prompts.tokenizer import load_tokenizer
    from sparcom.models import resolve_model

    with _opened(arguments) as corpus:
        instruction = find_instruction(corpus, arguments.id)

    def tokenizer_of(model: str) -> Any:
        trust = arguments.trust_remote_code
        return load_tokenizer(resolve_model(model), trust_remote_code=trust)

    tokenizer = tokenizer_of(arguments.model)
    _, _, other = arguments.template.partition("from:")
    template = make_template(
        arguments.template,
        tokenizer,
        system=arguments.system,
        donor=tokenizer_of(other) if other else None,
        bos=arguments.bos,
        date=parse_date(arguments.date) if arguments.date else None,
    )
    (prompt,) = make_prompts(
        [instruction],
        tokenizer,
        template=template,
        scope=arguments.scope,
        max_tokens=arguments.max_tokens,
    )
    return _result(arguments, show(instruction, prompt, tokenizer, template))


def _build(arguments: argparse.Namespace) -> Result:
    from sparcom.corpus.hexainst.build import BuildOptions, build_corpus

    options = BuildOptions(
        half=arguments.half,
        human=arguments.human,
        mirror=arguments.mirror,
        seed=arguments.seed,
        missing=arguments.missing,
        overwrite=arguments.overwrite,
    )

    def say(text: str) -> None:
        if arguments.progress:
            print(text, file=sys.stderr)

    return _result(arguments, build_corpus(arguments.recipe, arguments.out, options, say))


def _ticker(arguments: argparse.Namespace) -> Callable[[int], None] | None:
    """On a terminal, a bar of how many records were read."""
    if not arguments.progress:
        return None
    from tqdm import tqdm

    bar = tqdm(unit="record")

    def show(records: int) -> None:
        bar.update(records - bar.n)

    return show
