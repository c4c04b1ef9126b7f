"""Row templates of recipes: text with `{paths}` into a row of a data set.

    {answer.value}          goes into objects by name and into lists by position
    {question/Question}     the first of several paths that exists
    {context?}              empty if it is missing
    {options|lines}         a list, one item a line       {source|text}    a list, joined by spaces
    {answer|after ####}     what follows the last ####    {label|words}    underscores to spaces

Unlike `str.format`, a path reaches data only, never an attribute: a recipe is not code.
"""

import re
from collections.abc import Callable, Mapping

from sparcom.corpus.reading.fields import MISSING, value_at
from sparcom.errors import InputError

_HOLE = re.compile(r"\{([^{}|?]+)(\?)?(?:\|(\w+)(?: ([^{}]+))?)?\}")


def _join(separator: str) -> Callable[[object, str], str]:
    def joined(value: object, _: str) -> str:
        items = value if isinstance(value, list) else [value]
        return separator.join(str(item) for item in items)

    return joined


_FILTERS: dict[str, Callable[[object, str], str]] = {
    "lines": _join("\n"),
    "text": _join(" "),
    "after": lambda value, mark: str(value).rpartition(mark)[2],
    "words": lambda value, _: str(value).replace("_", " "),
}


class MissingFieldError(LookupError):
    """A row has none of a hole's paths."""


def check_template(template: str, where: str) -> None:
    """Raise InputError if a template has a stray brace or an unknown filter."""
    rest = _HOLE.sub("", template)
    if "{" in rest or "}" in rest:
        raise InputError(f"{where}: a brace is open or empty in {template!r}")
    for hole in _HOLE.finditer(template):
        if hole[3] and hole[3] not in _FILTERS:
            raise InputError(f"{where}: filter {hole[3]!r} is unknown ({', '.join(_FILTERS)})")


def _text(value: object) -> str:
    """The text of a value; 3.0 gives "3", since some copies of a data set hold 3 and others 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def fill(template: str, row: Mapping) -> str:
    """The template with its holes filled from a row, white space at the ends removed.

    Raises MissingFieldError naming the paths that a row lacks.

    >>> fill("{answer|after ####}", {"answer": "6 * 7 #### 42"})
    '42'
    """

    def value(hole: re.Match[str]) -> str:
        for path in hole[1].split("/"):
            found = value_at(row, path.split("."))
            if found is not MISSING and found is not None:
                return _FILTERS[hole[3]](found, hole[4] or "") if hole[3] else _text(found)
        if hole[2]:
            return ""
        raise MissingFieldError(hole[1])

    return _HOLE.sub(value, template).strip()
