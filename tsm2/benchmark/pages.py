"""Pages: sections of text, tables and pictures as one HTML file that needs no other.

The template is `templates/page.html`; tables are written by pandas' Styler, pictures stand in the
page itself. The benchmark's report and `compare` share both.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup
from pandas.io.formats.style import Styler

import tsm2

__all__ = ["Section", "as_image", "render", "styled"]

_BOLD = "**"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of a page, in no format yet."""

    title: str
    """Its heading."""
    text: str = ""
    """A paragraph."""
    table: pd.DataFrame | None = None
    """Cells of text; what is best begins with a number between double asterisks."""
    items: tuple[str, ...] = ()
    """A list."""
    picture: str | None = None
    """File name of a picture, for formats that cannot hold one."""
    image: str = ""
    """The picture itself, from `as_image`."""


def render(title: str, sections: Sequence[Section], *, facts: str = "", headline: str = "") -> str:
    """Return a page without scripts that loads nothing.

    Parameters
    ----------
    title
        Its heading.
    sections
        Its parts.
    facts
        What it is about, in a line.
    headline
        What came out, in a sentence.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["styled"] = styled
    text = (files("tsm2.benchmark") / "templates" / "page.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        title=title,
        sections=sections,
        facts=facts,
        headline=headline,
        footer=f"Made with tsm2 {tsm2.__version__}.",
    )


def styled(table: pd.DataFrame) -> Markup:
    """Return a table of text as HTML; what is best is marked."""
    plain = table.astype(str)
    plain.columns = [str(name) for name in plain.columns]
    plain.index = pd.RangeIndex(len(plain))
    is_best = plain.map(lambda cell: cell.startswith(_BOLD))
    classes = is_best.map(lambda best: "best" if best else "")
    style = Styler(plain.map(lambda cell: cell.replace(_BOLD, "")), uuid="t", cell_ids=False)
    style = style.set_td_classes(classes).hide(axis="index").format(escape="html")
    style = style.format_index(escape="html", axis=1)
    return Markup(style.to_html(table_attributes='class="figures"'))  # noqa: S704 - it is escaped


def as_image(content: bytes, kind: str = "image/png") -> str:
    """Return a picture as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
