"""Figures as a page holds them: SVG within HTML, each with names of its own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.dom import minidom
from xml.dom.minidom import Comment, Element

from markupsafe import Markup

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DROPPED = ("metadata", "style")  # the style is about every element of whatever page it is in


@dataclass(frozen=True)
class Drawing:
    """One figure of a page."""

    name: str
    words: str
    svg: Markup
    files: tuple[tuple[str, str], ...]  # what kind of file, and the way to it

    @property
    def width(self) -> float:
        """In points, as it is drawn."""
        found = re.search(r'viewBox="0 0 ([\d.]+)', self.svg)
        return float(found[1]) if found else 0.0


def inline(path: Path, words: str) -> Markup:
    """The SVG of a file, fit to stand in a page among others, with `words` for who cannot see it.

    Every id begins with the file's name, and so does what refers to it.
    """
    document = minidom.parseString(path.read_bytes())
    root = document.documentElement
    assert root is not None
    for element in list(_elements(root)):
        _prefix(element, path.stem)
    for size in ("width", "height"):
        root.removeAttribute(size)
    root.setAttribute("role", "img")
    root.setAttribute("aria-label", words)
    return Markup(root.toxml())


def _elements(element: Element) -> Iterator[Element]:
    """The element and all below it, without comments and what is dropped."""
    yield element
    for child in list(element.childNodes):
        if isinstance(child, Comment) or (isinstance(child, Element) and child.tagName in _DROPPED):
            element.removeChild(child)
        elif isinstance(child, Element):
            yield from _elements(child)


def _prefix(element: Element, name: str) -> None:
    if element.hasAttribute("id"):
        element.setAttribute("id", f"{name}-{element.getAttribute('id')}")
    reference = element.getAttribute("xlink:href")
    if reference.startswith("#"):
        element.setAttribute("xlink:href", f"#{name}-{reference[1:]}")
    for attribute in ("clip-path", "mask", "fill", "style"):
        if "url(#" in (value := element.getAttribute(attribute)):
            element.setAttribute(attribute, _REFERENCE.sub(rf"url(#{name}-\1)", value))
