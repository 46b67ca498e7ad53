"""A hook of MkDocs: the notebook is a page of the site, with its stored outputs. Jupyter is not needed for it."""

import json
import pathlib

from mkdocs.structure.files import File

NOTEBOOK, PAGE = "tour.ipynb", "tour.md"


def on_files(files, config):
    """The page, made of the notebook's cells, beside the notebook, which can be downloaded."""
    cells = json.loads(pathlib.Path(config.docs_dir, NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(part for cell in cells for part in _parts(cell))
    files.append(File.generated(config, PAGE, content=f"{text}\n\n[Download the notebook]({NOTEBOOK})\n"))
    return files


def on_page_markdown(markdown, page, **_):
    """Links of other pages lead to the page."""
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"({NOTEBOOK})", f"({PAGE})")


def _parts(cell):
    """A cell as Markdown: its text, or its code with what it printed and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the cell draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
        else:
            yield f"```text\n{''.join(data.get('text/plain', output.get('text', ''))).rstrip()}\n```"
