"""Read the deployment files, and spoil them one key at a time."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[2]

Document = dict[str, Any]
KeyPath = tuple[str | int, ...]


def read_yaml(name: str) -> Document:
    """One deployment file; no key stands twice in a mapping."""
    document = yaml.load((ROOT / name).read_text(), _Strict)
    assert isinstance(document, dict), name
    return document


def keys(document: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Where each key of a document stands, the outer ones first."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*path, key)
            yield from keys(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from keys(value, (*path, index))


def misspelt(document: Document, path: KeyPath) -> Document:
    """A copy in which one key has a letter too many."""
    spoilt = copy.deepcopy(document)
    inner: Any = spoilt
    for step in path[:-1]:
        inner = inner[step]
    entries = [(f"{key}x" if key == path[-1] else key, value) for key, value in inner.items()]
    inner.clear()
    inner.update(entries)
    return spoilt


def spoken(path: KeyPath) -> str:
    """A path as one reads it, for a test's name."""
    return ".".join(str(step) for step in path)


def wrong_start_options(arguments: Sequence[str]) -> list[str]:
    """What the installed `ray start` has against these arguments."""
    try:
        context = start.make_context("ray start", list(arguments))
    except click.ClickException as error:
        return [f"ray start: {error.format_message()}"]
    return [f"ray start: {word} is no option" for word in context.args]


class _Strict(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one in silence: here that is an error."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> Document:
    names = [loader.construct_object(key, deep=True) for key, _ in node.value]
    assert len(names) == len(set(names)), f"a key stands twice among {names}, {node.start_mark}"
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
