"""The YAML at the head of a prompt, where a key that stands twice is an error: the second would win in silence."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str, *, is_ours: bool) -> Any:
    """What the YAML says. `is_ours`: we ship it, and wrote nothing that could harm the parser in C, which is quick.

    Raises yaml.YAMLError, or ValueError or RecursionError where Python's parser gives up.
    """
    return yaml.load(text, Loader=_Quick if is_ours else _Careful)


class _OnceEach:
    """Of a safe loader: each key may stand once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)  # type: ignore[misc]
        return mapping


class _Careful(_OnceEach, yaml.SafeLoader):
    """YAML's safe loader in Python, which no depth of nesting can crash."""


class _Quick(_OnceEach, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same in C, ten times as fast."""
