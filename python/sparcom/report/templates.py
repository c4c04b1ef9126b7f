"""The HTML templates of the pages, and the other files that lie beside them."""

from importlib.resources import files
from typing import Any

import jinja2

from sparcom.formatting import printable


def asset(name: str) -> str:
    """The text of a file of this folder: "page.html", "app/page.css"."""
    return files("sparcom.report").joinpath(name).read_text("utf-8")


def template(name: str) -> jinja2.Template:
    """A template. What it is given is escaped; a name that it is not given is an error."""
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        loader=jinja2.FunctionLoader(asset),
    )
    return environment.get_template(name)


def _visible(value: Any) -> str:
    """A text with invisible characters, which could reorder what surrounds it, as escapes."""
    return value if hasattr(value, "__html__") else printable(str(value))
