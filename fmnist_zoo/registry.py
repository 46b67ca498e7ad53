"""Names of models, and their specs and recipes.

A call of `register` adds a model, here or in a module of yours. The zoo's own calls are in `catalog.py`. Standard
library alone, because listings must not wait for imports.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Iterable

from fmnist_zoo import arguments, custom, prototype, weights
from fmnist_zoo.backend import without_noise
from fmnist_zoo.settings import nearest, parse, settings_of, suggestion
from fmnist_zoo.spec import LOCAL, ModelSpec, Recipe, SpecError

if TYPE_CHECKING:
    import keras

_MODELS: dict[str, tuple[ModelSpec, Recipe]] = {}
_FIELDS = settings_of(ModelSpec)


def register(name: str, description: str = "", *, recipe: Recipe = Recipe(),
             build: Callable[..., keras.Model] | None = None, summary: custom.ModelSummary | None = None,
             **architecture: Any) -> ModelSpec:
    """Adds a model to the zoo and returns its spec.

    Args:
        name: letters, digits, `_`, `.`, `+` and `-`. It is also the name of a folder.
        recipe: how it is trained by default.
        build: a function that returns a new `keras.Model` in each call (functional, Sequential or subclassed), from
            (batch, 784), (batch, 28, 28) or (batch, 28, 28, 1) float32 in [0, 1] to (batch, 10) logits. It is called
            when the model is built; the global random seeds are then set. Such a model has no settings of the
            architecture. Its keyword arguments with a number, a text or a bool as default are hyper-parameters of the
            model; a function with the one argument `hp` asks keras-tuner's `HyperParameters` for them. Optimizer,
            learning rate and further numbers of its `compile` are those of the recipe, unless `recipe` has others.
        summary: what a listing says of such a model before it was built; None: nothing.
        **architecture: settings of `ModelSpec`, such as `hidden` and `dropout`.

    Raises:
        SpecError: for a name that is taken or not possible, an unknown field, or a wrong value.
    """
    return _register(name, description, recipe, build, sys._getframe(1).f_globals.get("__name__", ""), architecture,
                     summary)


def spec_of(model: str | ModelSpec | Callable[..., keras.Model] | keras.Model) -> ModelSpec:
    """The spec of what a caller names as a model: the one place that tells names, specs, functions and models apart.

    A function, as `register` takes one, is registered by its own name if it is not yet. One that was defined again, in
    a notebook, replaces the earlier one. Of a `keras.Model` clones are trained: see `prototype`.

    Raises:
        SpecError: for a name that is unknown, and a function or a model without a name of its own; a model that cannot
            be cloned.
        TypeError: for anything else.
    """
    if isinstance(model, ModelSpec):
        return model
    if isinstance(model, str):
        return get_spec(model)
    if prototype.is_model(model):
        name = f"{model.name}_clone" if model.name in _MODELS else model.name
        _check_name(name)
        return prototype.add(model, name)
    if callable(model):
        return _of_function(model)
    raise TypeError("model is a name, a ModelSpec, a function that returns a Keras model, or such a model; received "
                    f"{model!r:.80}")


def _of_function(build: Callable[..., keras.Model]) -> ModelSpec:
    for spec, _ in _MODELS.values():
        if spec.build and spec.builder.function == build:
            return spec
    name = getattr(build, "__name__", "")
    if not name.isidentifier():
        raise SpecError("a model is named after the function that builds it; a lambda, a partial function or "
                        f"{type(build).__qualname__} has no name: write def my_cnn(): ..., or give one with "
                        "fmnist_zoo.register(name, build=...)")
    described = (build.__doc__ or "").strip().partition("\n")[0]
    return _register(name, described, Recipe(), build, build.__module__, {})


def _register(name: str, description: str, recipe: Recipe, build: Callable[..., keras.Model] | None, module: str,
              architecture: dict[str, Any], summary: custom.ModelSummary | None = None) -> ModelSpec:
    built = None if build is None else custom.Builder(name, build, module)
    if name in _MODELS and not (built and built.in_main and built.build == _MODELS[name][0].build):
        raise SpecError(f"a model named {name!r} is registered already ({_MODELS[name][0].description}); "
                        "choose another name")
    _check_name(name)
    if not isinstance(recipe, Recipe):
        raise SpecError(f"recipe must be a Recipe, received {recipe!r}")
    _refuse_unknown_fields(architecture)
    spec = ModelSpec(name=name, description=description, build=built.build if built else "",
                     arguments=arguments.canonical(built.defaults if built and not built.takes_hp else ()),
                     **architecture)
    if built:
        built.given(spec.arguments).summary = summary
        custom.add(built)
    _MODELS[name] = (spec, recipe)
    return spec


def _check_name(name: str) -> None:
    if name in ("sweeps", "ensembles") or "," in str(name) or "=" in str(name):
        raise SpecError(f"{name!r} cannot name a model: ',' and '=' mark changed models, and sweeps and ensembles are "
                        "folders of their own; give it another name")


def list_models(pattern: str = "*", *, trained: bool = False) -> list[str]:
    """Names that match a shell pattern such as `4D*`, in the catalog's order; `trained`: with shipped weights."""
    shipped = weights.manifest() if trained else _MODELS
    return [name for name in _MODELS if fnmatch.fnmatchcase(name, pattern) and name in shipped]


def get_spec(name: str, **overrides: Any) -> ModelSpec:
    """The spec of a registered name, or of a changed one: `4L,dropout=0.3_0.2_0.1,l2=1e-05`, or `my_cnn,filters=16`.

    Raises:
        SpecError: for an unknown name (with the nearest names), or wrong overrides.
    """
    base, *changes = str(name).split(",")
    spec = _find(base)[0]
    parsed: dict[str, Any] = {}
    for change in changes:
        field, _, text = change.partition("=")
        if spec.build:
            field, value = arguments.unescaped(field), arguments.read(text)
        else:
            _refuse_unknown_fields({field: text})
            value = parse(field, _FIELDS[field].kind, text)
        if field in parsed:
            raise SpecError(f"{name!r} names {field} twice")
        parsed[field] = value
    return derive(derive(spec, **parsed), **overrides)


def get_recipe(name: str) -> Recipe:
    """The recipe of a model; of a changed model, that of its base."""
    return _find(str(name).split(",")[0])[1]


def recipe_of(spec: ModelSpec) -> Recipe:
    """The same of a spec, which may be of a model that is not registered."""
    return _MODELS.get(spec.name.partition(",")[0], (spec, Recipe()))[1]


def derive(spec: ModelSpec, **overrides: Any) -> ModelSpec:
    """`spec` with some fields changed, and a name that says so.

    A result that equals a registered model has that model's name. Otherwise the name is `<base>,<field>=<value>`, with
    each field that differs from the base. `get_spec` reads it back.
    """
    changes = {field: value for field, value in overrides.items() if value is not None}
    if spec.build:
        return _with_arguments(spec, changes) if changes else spec
    _refuse_unknown_fields(overrides)
    if "hidden" in changes:
        if not _FIELDS["hidden"].kind.check("hidden", changes["hidden"]):  # the base's are for hidden layers
            for field in ("dropout", "activation", "normalization", "initializer"):
                if field != "initializer" or spec.initializer == LOCAL:
                    changes.setdefault(field, _FIELDS[field].default)
        elif len(set(spec.dropout)) == 1:
            changes.setdefault("dropout", spec.dropout[0])  # the one rate of all layers serves any number of layers
    changed = dataclasses.replace(spec, **changes)
    base, _ = _MODELS.get(spec.name.split(",")[0], (spec, None))
    for twin in (base, *(known for known, _ in _MODELS.values())):
        if twin.architecture == changed.architecture:
            return twin
    differing = {field: known.kind.write(getattr(changed, field)) for field, known in _FIELDS.items()
                 if getattr(changed, field) != getattr(base, field)}
    name = ",".join([base.name, *(f"{field}={text}" for field, text in differing.items())])
    return dataclasses.replace(changed, name=name, description=_changed(base, differing))


def _with_arguments(spec: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    """The spec of a model of the user's with some arguments, by label, changed, and a name that says so."""
    spec.refuse_settings(name for name in changes if name in _FIELDS)
    known, found = spec.builder, dict(spec.arguments)
    for label, value in changes.items():
        if not known.takes(label):
            raise SpecError(f"{spec.name} is built by {custom.readable(spec.build)}, which has no argument {label!r}; "
                            f"{nearest(label, map(arguments.label, known.defaults))}")
        name = arguments.name_of(label)
        if name in known.defaults:
            value = arguments.kind_of(known.defaults[name]).check(label, value)
        found[name] = value
    base, _ = _MODELS.get(spec.name.partition(",")[0], (spec, None))
    changed = dataclasses.replace(spec, arguments=arguments.canonical(found))
    differing = {arguments.label(name): arguments.write(value) for name, value in changed.arguments
                 if (name, value) not in base.arguments}
    if not differing:
        return base
    name = ",".join([base.name, *(f"{arguments.escaped(label)}={text}" for label, text in differing.items())])
    return dataclasses.replace(changed, name=name, description=_changed(base, differing))


def _changed(base: ModelSpec, differing: Iterable[str]) -> str:
    """The description of a model that differs from a registered one."""
    return f"as {base.name} ({base.description}), but for {', '.join(differing)}"


def load_zoo_module(name: str, folder: str = "") -> None:
    """Imports a user's module, from a folder first (by default the working folder).

    Raises:
        SpecError: if it cannot be found or raises an error.
    """
    folder, problem = folder or os.getcwd(), None
    sys.path.insert(0, folder)
    try:
        with without_noise():  # it may import Keras
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # the module may raise any error
                problem = error
    finally:
        sys.path.remove(folder)
    if isinstance(problem, SpecError):
        raise problem
    if problem:
        message = " ".join(str(problem).split())
        advice = "; name it as import does, without .py" if name.endswith(".py") or os.sep in name else ""
        shown = name if name.isprintable() else repr(name)
        raise SpecError(f"--zoo_module={shown} cannot be imported: {type(problem).__name__}: {message}{advice}"
                        ) from problem


def _find(name: str) -> tuple[ModelSpec, Recipe]:
    if name in _MODELS:
        return _MODELS[name]
    raise SpecError(f"no model is named {name!r}; {nearest(name, _MODELS)} (a model of your own needs --zoo_module)")


def _refuse_unknown_fields(fields: dict[str, Any]) -> None:
    for field in fields:
        if field not in _FIELDS:
            hint = suggestion(field, _FIELDS)
            raise SpecError(f"a model has no field {field!r}; {hint}{' ' * bool(hint)}fields: {', '.join(_FIELDS)}")
