"""How docstrings are read for the site: the slot after a parameter's colon is prose, since its type is annotated."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")
SLOTS = {
    griffe.DocstringSectionKind.parameters,
    griffe.DocstringSectionKind.attributes,
    griffe.DocstringSectionKind.returns,
}


class HouseStyle(griffe.Extension):
    """Puts the slots where mkdocstrings shows prose, and the annotations of the code where it shows types."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:  # noqa: ARG002 - whatever else griffe says
        """Read the docstring of a module, class, function or attribute."""
        if obj.docstring is None:
            return
        obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
        for section in obj.docstring.parsed:
            if section.kind in SLOTS:
                for item in section.value:
                    slot = "" if item.annotation is None else str(item.annotation)
                    item.annotation = annotation_of(obj, section.kind, item.name)
                    is_written = slot and slot != str(item.annotation)
                    item.description = "\n".join(
                        part for part in (slot if is_written else "", item.description) if part
                    )


def annotation_of(obj: griffe.Object, kind: griffe.DocstringSectionKind, name: str) -> Any:
    """Return the annotation that the code has, or None."""
    if kind is griffe.DocstringSectionKind.returns:
        return getattr(obj, "returns", None)
    if kind is griffe.DocstringSectionKind.attributes:
        return getattr(obj.members.get(name), "annotation", None)
    of_class = obj.members.get("__init__", obj) if isinstance(obj, griffe.Class) else obj
    parameters = getattr(of_class, "parameters", ())
    found = next((p for p in parameters if p.name == name), None)
    return found.annotation if found else getattr(obj.members.get(name), "annotation", None)
