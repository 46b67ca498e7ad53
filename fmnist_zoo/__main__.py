"""`python -m fmnist_zoo [PATTERN]`: the table of models, or one model's card. Never imports TensorFlow."""

from __future__ import annotations

import argparse
import json
import os
import sys

from fmnist_zoo import card, registry
from fmnist_zoo.results import ResultsError
from fmnist_zoo.spec import SpecError
from fmnist_zoo.weights import WeightsError


def main(arguments: list[str] | None = None) -> int:
    """Prints the listing; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fmnist_zoo", description="Lists the models of the zoo.")
    parser.add_argument("pattern", nargs="?", default="*", help="a name (its card) or a pattern such as '4D*'")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown, as in the README")
    parser.add_argument("--zoo_module", metavar="MODULE", help="a module of yours that registers more models")
    options = parser.parse_args(arguments)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if options.zoo_module:
            registry.load_zoo_module(options.zoo_module)
        print(_listing(options.pattern, "json" if options.json else "markdown" if options.markdown else "text"),
              flush=True)
    except (SpecError, ResultsError, WeightsError) as error:
        print(f"fmnist_zoo: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `python -m fmnist_zoo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _listing(pattern: str, form: str) -> str:
    names = registry.list_models(pattern)
    if not names or pattern in names and form != "markdown":  # a card; get_spec says which names are near
        spec, recipe = registry.get_spec(pattern), registry.get_recipe(pattern)
        return json.dumps(card.facts([(spec, recipe)])[0], indent=2) if form == "json" else card.card(spec, recipe)
    if form == "json":
        models = [(registry.get_spec(name), registry.get_recipe(name)) for name in names]
        return json.dumps(card.facts(models), indent=2)
    return {"text": card.table, "markdown": card.markdown}[form]([registry.get_spec(name) for name in names])


if __name__ == "__main__":
    sys.exit(main())
