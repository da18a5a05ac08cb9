"""YAML text -> plain values, strictly: no duplicate keys, aliases, tags; bounded size; no meaning."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SpaceError

_MAX_BYTES = 2**20
_MAX_EVENTS = 10_000  # a space of all hyperparameters takes ~300
_MAX_LEVELS = 20


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file that is not larger than _MAX_BYTES.

    Raises:
        SpaceError: the file is missing, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise SpaceError(f"{path}: no such file; expected a YAML file; check the path") from error
    except OSError as error:
        raise SpaceError(
            f"{path}: cannot be read ({error.strerror}); expected a YAML file; check the path and its permissions"
        ) from error
    if len(content) > _MAX_BYTES:
        raise SpaceError(
            f"{path}: is larger than 1 MiB; expected a file of a few KB; check that this is the right file"
        )
    return content


def parse(content: bytes, source: str) -> Any:
    """Return the one document in `content` as dicts with text keys, lists and scalars.

    Raises:
        SpaceError: not UTF-8, not YAML, or YAML that says something twice or hides what it says.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpaceError(
            f"{source}: byte {error.start} is not UTF-8; expected UTF-8 text; save the file as UTF-8"
        ) from error
    try:
        _check_events(text, source)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else plain(loader, node, source)
    except yaml.YAMLError as error:
        raise SpaceError(
            f"{source}:{_line_of(error)} not YAML: {_problem_of(error)}; expected `key: value` lines; "
            "check indentation (no tabs), colons, brackets and quotes"
        ) from error
    except ValueError as error:  # 2026-13-45 looks like a date to YAML, and int() refuses 5000 digits
        raise SpaceError(
            f"{source}: holds a value that YAML cannot read ({error}); expected numbers and words; "
            "quote it if it is text"
        ) from error


def _check_events(text: str, source: str) -> None:
    """Refuse aliases, tags, and text that is too long or too deep for the recursive steps that follow."""
    level = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise SpaceError(
                f"{source}: line {line} uses the alias *{event.anchor}; expected plain values; "
                "write the value out there"
            )
        if tag := getattr(event, "tag", None):
            raise SpaceError(f"{source}: line {line} has the tag {tag}; expected plain values; remove the tag")
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > _MAX_LEVELS or count > _MAX_EVENTS:
            raise SpaceError(
                f"{source}: line {line} is beyond {_MAX_LEVELS} levels or {_MAX_EVENTS} values; "
                "expected less; check that this is the right file"
            )


def plain(loader: yaml.SafeLoader, node: yaml.Node, source: str) -> Any:
    """Return the value of a node; a mapping must have text keys, each once."""
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)
    if isinstance(node, yaml.SequenceNode):
        return [plain(loader, child, source) for child in node.value]
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = _text_key(key_node, source)
        if key in mapping:
            raise SpaceError(
                f"{source}: line {key_node.start_mark.line + 1} has the key {key!r} a second time; "
                "expected each key once; remove one of the two"
            )
        mapping[key] = plain(loader, value_node, source)
    return mapping


def _text_key(node: yaml.Node, source: str) -> str:
    """Return the key that a node holds."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return str(node.value)
    found = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
    raise SpaceError(
        f"{source}: line {node.start_mark.line + 1} has the key {found[:60]}, which is not text to YAML; "
        "expected a name; correct or quote it"
    )


def _line_of(error: yaml.YAMLError) -> str:
    """Return ' line 3:' where the error knows its place."""
    mark = getattr(error, "problem_mark", None)
    return f" line {mark.line + 1}:" if mark else ""


def _problem_of(error: yaml.YAMLError) -> str:
    """Return what is wrong, on one line."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unknown problem"
    return " ".join(str(problem).split())
