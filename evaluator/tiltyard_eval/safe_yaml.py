"""YAML from strangers: plain data only, bounded in size, without tags, aliases, repeated keys or dates."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_YAML_BYTES = 256 * 1024


class YamlError(ValueError):
    """The text is not YAML of the plain kind; the message says what is wrong and where."""


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without what a configuration does not need and a hostile file can abuse."""

    # Dates stay text, so that every value can be written as JSON.
    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few of them, nested, stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise ConstructorError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice, of which plain YAML would silently keep the last."""
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise ConstructorError(None, None, "a key stands twice in one mapping", node.start_mark)
        return mapping


def _refuse_tag(_loader: _PlainLoader, suffix: str, node: yaml.Node) -> None:
    raise ConstructorError(None, None, f"the tag !{suffix} is not allowed: only plain data", node.start_mark)


_PlainLoader.add_multi_constructor("!", _refuse_tag)


def load_plain_yaml(content: bytes, where: str) -> dict[str, Any]:
    """Parse one YAML mapping with string keys at its top.

    Args:
        content: UTF-8 text, at most ``MAX_YAML_BYTES``.
        where: The file's name, for messages.

    Raises:
        YamlError: When the content is larger, not UTF-8, not plain YAML, or no mapping.
    """
    if len(content) > MAX_YAML_BYTES:
        raise YamlError(f"{where}: {len(content)} bytes; at most {MAX_YAML_BYTES} are allowed")
    try:
        loader = _PlainLoader(content.decode("utf-8"))
        try:
            data = loader.get_single_data()
        finally:
            loader.dispose()
    except (UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise YamlError(f"{where}: not plain YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise YamlError(f"{where}: nested too deeply") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise YamlError(f"{where}: the file must hold a YAML mapping with text as keys")
    return data
