"""Names and the models behind them.

`register` is all it takes to add a model, here or in a module of yours: plain data, no decorator. The zoo's own lines
are in `catalog.py`. Nothing here may import more than the standard library.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from typing import Any

from fmnist_zoo import weights
from fmnist_zoo.spec import ModelSpec, Recipe, SpecError

_MODELS: dict[str, tuple[ModelSpec, Recipe]] = {}
_FIELDS = tuple(field for field in ModelSpec("x").architecture)
_RESERVED = ("sweeps",)  # the log folder keeps sweeps there


def register(name: str, description: str = "", *, recipe: Recipe = Recipe(), **architecture: Any) -> ModelSpec:
    """Adds a model to the zoo and returns its spec.

    Args:
        name: letters, digits, `_`, `.`, `+` and `-`; it names a folder too.
        description: one line.
        recipe: how it is trained by default.
        **architecture: `hidden`, `dropout`, `l1`, `l2`, `initializer`, as in `ModelSpec`.

    Raises:
        SpecError: for a name that is taken or cannot be, an unknown field, or a value that cannot be.
    """
    if name in _MODELS:
        raise SpecError(f"a model named {name!r} is registered already ({_MODELS[name][0].description}); "
                        "choose another name")
    if name in _RESERVED or "," in str(name) or "=" in str(name):
        raise SpecError(f"{name!r} cannot name a model: ',' and '=' mark changed models, "
                        f"and {', '.join(_RESERVED)} is a folder of its own")
    if not isinstance(recipe, Recipe):
        raise SpecError(f"recipe must be a Recipe, received {recipe!r}")
    _refuse_unknown_fields(architecture)
    spec = ModelSpec(name=name, description=description, **architecture)
    _MODELS[name] = (spec, recipe)
    return spec


def list_models(pattern: str = "*", *, trained: bool = False) -> list[str]:
    """Names that match a shell pattern such as `4D*`, in the catalog's order.

    Args:
        trained: only those whose trained weights come with the package.
    """
    shipped = weights.manifest() if trained else _MODELS
    return [name for name in _MODELS if fnmatch.fnmatchcase(name, pattern) and name in shipped]


def get_spec(name: str, **overrides: Any) -> ModelSpec:
    """The spec of a registered name, or of a changed one such as `4L,dropout=0.3_0.2_0.1,l2=1e-05`.

    Raises:
        SpecError: for a name that nobody registered (with the nearest ones), or overrides that cannot be.
    """
    base, *changes = str(name).split(",")
    spec = _find(base)[0]
    parsed: dict[str, Any] = {}
    for change in changes:
        field, _, text = change.partition("=")
        _refuse_unknown_fields({field: text})
        if field in parsed:
            raise SpecError(f"{name!r} names {field} twice")
        parsed[field] = _parse(field, text)
    return derive(derive(spec, **parsed), **overrides)


def get_recipe(name: str) -> Recipe:
    """The recipe of a model; a changed model is trained as the one it was made from."""
    return _find(str(name).split(",")[0])[1]


def derive(spec: ModelSpec, **overrides: Any) -> ModelSpec:
    """`spec` with some fields changed, under a name that tells the truth.

    If the result equals a registered model, it bears that model's name. Else it is `<base>,<field>=<value>` for each
    field that differs from the base, which `get_spec` reads back.
    """
    _refuse_unknown_fields(overrides)
    changes = {field: value for field, value in overrides.items() if value is not None}
    if "hidden" in changes and len(set(spec.dropout)) == 1:
        changes.setdefault("dropout", spec.dropout[0])  # one rate for all layers, however many there are now
    changed = dataclasses.replace(spec, **changes)
    base = _MODELS[spec.name.split(",")[0]][0] if spec.name.split(",")[0] in _MODELS else spec
    twins = [base, *(known for known, _ in _MODELS.values())]
    for twin in twins:
        if twin.architecture == changed.architecture:
            return twin
    differing = [field for field in _FIELDS if getattr(changed, field) != getattr(base, field)]
    name = ",".join([base.name, *(f"{field}={_text(getattr(changed, field))}" for field in differing)])
    return dataclasses.replace(changed, name=name, description=f"{base.description} (changed: {', '.join(differing)})")


def load_zoo_module(name: str) -> None:
    """Imports a module of the user's that registers models; the working folder is searched first.

    Raises:
        SpecError: if it cannot be found or fails while it is imported.
    """
    import importlib
    import os
    import sys

    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        importlib.import_module(name)
    except SpecError:
        raise
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything; they want it in one line
        message = " ".join(str(error).split())
        raise SpecError(f"--zoo_module={name} cannot be imported: {type(error).__name__}: {message}") from error
    finally:
        sys.path.remove(folder)


def _find(name: str) -> tuple[ModelSpec, Recipe]:
    if name in _MODELS:
        return _MODELS[name]
    raise SpecError(f"no model is named {name!r}; {nearest(name, _MODELS)}")


def nearest(name: str, known: Any) -> str:
    """'did you mean ...' for a mistyped name: near in spelling, whatever its case."""
    import difflib

    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)
    if not close:
        return f"known: {', '.join(known)}"
    return f"did you mean {', '.join(folded[candidate] for candidate in close)}?"


def _refuse_unknown_fields(fields: dict[str, Any]) -> None:
    for field in fields:
        if field not in _FIELDS:
            raise SpecError(f"a model has no field {field!r}; {nearest(field, _FIELDS)} (fields: {', '.join(_FIELDS)})")


def _text(value: Any) -> str:
    """A field's value inside a name: `0.3_0.2`, `1e-05`, `none` for an empty list."""
    if isinstance(value, tuple):
        return "_".join(map(str, value)) or "none"
    return str(value)


def _parse(field: str, text: str) -> Any:
    """The inverse of `_text`."""
    if field == "initializer":
        return text
    number = int if field == "hidden" else float
    try:
        if field in ("l1", "l2"):
            return number(text)
        return () if text == "none" else tuple(number(part) for part in text.split("_"))
    except ValueError:
        raise SpecError(f"{field}={text!r} in a model's name does not read as {number.__name__} values") from None
