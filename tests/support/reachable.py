"""Everything that can be read of a run: each page and each operation of the API, found by walking them."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\{(\w+)\}")


def read_everything(client: Client, values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What GET answers at every address whose parameters all have values here, by address; redirects are followed."""
    paths = [*_pages(get_resolver()), *_operations()]
    read = {}
    for path in paths:
        names = [page or operation for page, operation in _PARAMETER.findall(path)]
        if not set(names) <= set(values):
            continue
        for chosen in itertools.product(*(values[name] for name in names)):
            address = path
            for value in chosen:
                address = _PARAMETER.sub(value, address, count=1)
            answer = client.get(address, follow=True)
            content = b"".join(answer.streaming_content) if answer.streaming else answer.content
            read[address] = content.decode("utf-8", "replace")
    return read


def _pages(resolver: URLResolver, before: str = "/") -> Iterator[str]:
    for one in resolver.url_patterns:
        path = before + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _pages(one, path)
        elif isinstance(one, URLPattern) and "(?P" not in path and "^" not in path and "/logout/" not in path:
            yield path


def _operations() -> Iterator[str]:
    from tiltyard.api.api import api  # noqa: PLC0415 - needs Django's settings

    for path, methods in api.get_openapi_schema()["paths"].items():
        if "get" in methods:
            yield path
