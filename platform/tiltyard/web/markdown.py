"""Markdown from a competition's bundle as HTML that cannot do anything."""

from functools import lru_cache

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_TAGS = nh3.ALLOWED_TAGS - {"img", "map", "area"}  # an image would tell its host who reads the page


@lru_cache(maxsize=128)  # a page's text is the same for every visitor, and takes longer than all the rest of the page
def render_markdown(text: str) -> SafeString:
    """HTML without scripts, styles, images or raw HTML; links open with rel="noopener noreferrer".

    The page around it has the one first-level heading. So a title at the text's beginning is left out, and any other
    first-level heading becomes a second-level one.
    """
    tokens = _PARSER.parse(text)
    if tokens and tokens[0].tag == "h1":
        tokens = tokens[3:]  # opening, content, closing
    for token in tokens:
        if token.tag == "h1":
            token.tag = "h2"
    rendered = _PARSER.renderer.render(tokens, _PARSER.options, {})
    html = nh3.clean(rendered, tags=_TAGS, url_schemes={"http", "https", "mailto"})
    return mark_safe(html)  # noqa: S308  sanitised in the line above
