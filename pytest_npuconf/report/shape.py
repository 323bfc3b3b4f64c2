"""Whether a value is of the form that a published JSON Schema says: the few words that ours use, with no dependency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SAID = ("$schema", "$defs", "title", "description")
_WORDS = {
    "$ref": "ref", "type": "type", "enum": "enum", "const": "const", "required": "required", "properties": "properties",
    "additionalProperties": "additional", "items": "items", "minItems": "length", "maxItems": "length", "minimum": "minimum",
    "oneOf": "one_of",
}  # fmt: skip
_KINDS: Mapping[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,), "null": (type(None),),
    "boolean": (bool,),
}  # fmt: skip
Misfit = tuple[str, str]


def misfits(value: Any, schema: Mapping[str, Any]) -> Iterator[Misfit]:
    """Place (``checks[3].n``) and what is wrong there, for all of them.

    Raises:
        NotImplementedError: the schema has a word that is not checked here.
    """
    return _Form(schema).check(value, schema, "")


class _Form:
    """The words of a schema, each a method; ``root`` holds the definitions that others refer to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def check(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        for rule in dict.fromkeys(_WORDS.get(word, word) for word in schema if word not in _SAID):
            if rule not in _WORDS.values():
                raise NotImplementedError(f"the word {rule!r} of a schema")
            yield from getattr(self, f"_{rule}")(value, schema, place)

    def _ref(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from self.check(value, self._root["$defs"][name], place)

    def _type(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in names):
            yield place, f"is {type(value).__name__}, not {' or '.join(names)}"

    def _enum(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if not any(_same(value, one) for one in schema["enum"]):
            yield place, f"is {value!r}, not one of {', '.join(map(repr, schema['enum']))}"

    def _const(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if not _same(value, schema["const"]):
            yield place, f"is {value!r}, not {schema['const']!r}"

    def _required(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if isinstance(value, dict):
            yield from ((_at(place, name), "is missing") for name in schema["required"] if name not in value)

    def _properties(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if isinstance(value, dict):
            for name, wanted in schema["properties"].items():
                if name in value:
                    yield from self.check(value[name], wanted, _at(place, name))

    def _additional(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        wanted = schema["additionalProperties"]
        for name in value if isinstance(value, dict) else ():
            if name in schema.get("properties", {}) or wanted is True:
                continue
            if wanted is False:
                yield _at(place, name), "is no field of it"
            else:
                yield from self.check(value[name], wanted, _at(place, name))

    def _items(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        for number, one in enumerate(value if isinstance(value, list) else ()):
            yield from self.check(one, schema["items"], f"{place}[{number}]")

    def _length(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if isinstance(value, list) and (len(value) < least or (most is not None and len(value) > most)):
            yield place, f"has {len(value)} entries, not {least} to {'any number' if most is None else most}"

    def _minimum(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if _is(value, "number") and value < schema["minimum"]:
            yield place, f"is {value!r}, below {schema['minimum']!r}"

    def _one_of(self, value: Any, schema: Mapping[str, Any], place: str) -> Iterator[Misfit]:
        if sum(1 for one in schema["oneOf"] if not any(self.check(value, one, place))) != 1:
            yield place, "is of none of its forms"


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    whole = name == "integer" and isinstance(value, float) and value.is_integer()
    return whole or isinstance(value, _KINDS[name])


def _same(value: Any, wanted: Any) -> bool:
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
