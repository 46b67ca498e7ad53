"""`python -m fmnist_zoo [PATTERN ...]`: the table of models, or one model's card. Never imports TensorFlow."""

from __future__ import annotations

import argparse
import json
import os
import sys

from fmnist_zoo import card, registry
from fmnist_zoo.errors import ZooError


def main(arguments: list[str] | None = None) -> int:
    """Prints the listing; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fmnist_zoo", description="Lists the models of the zoo.")
    parser.add_argument("patterns", nargs="*", default=["*"], help="a name (its card), or patterns such as '4D*'")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown, as in the README")
    parser.add_argument("--zoo_module", metavar="MODULE", help="a module of yours that registers more models")
    options = parser.parse_args(arguments)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if options.zoo_module:
            registry.load_zoo_module(options.zoo_module)
        print(_listing(options.patterns, as_json=options.json, as_markdown=options.markdown), flush=True)
    except ZooError as error:
        print(f"fmnist_zoo: {card.printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `python -m fmnist_zoo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _listing(patterns: list[str], *, as_json: bool, as_markdown: bool) -> str:
    """The table of the models that match; the card (or JSON) of one that is named in full."""
    names: dict[str, None] = {}  # an ordered set
    for pattern in patterns:  # a name that is not listed may be a changed one, or get_spec refuses it
        matching = registry.list_models(pattern)
        names.update(dict.fromkeys([pattern] if not matching or pattern in matching else matching))
    one = list(names) == patterns and len(patterns) == 1
    models = [(registry.get_spec(name), registry.get_recipe(name)) for name in names]
    if as_json:
        found = card.to_dicts(models)
        return json.dumps(found[0] if one else found, indent=2)
    specs = [spec for spec, _ in models]
    if as_markdown:
        return card.markdown(specs)
    return card.card(*models[0]) if one else card.table(specs)


if __name__ == "__main__":
    sys.exit(main())
