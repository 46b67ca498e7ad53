"""A self-contained HTML page: pictures are inside it, and it needs no script and no other file."""

from __future__ import annotations

import base64
import html

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;font-size:14px}
td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}
th{background:#f4f4f4}
.plain td{white-space:nowrap}
img{max-width:100%}code{background:#f4f4f4;padding:0 .2em}"""


def document(title: str, body: str) -> str:
    """The whole file; `title` is plain text, `body` HTML."""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n")


def source(png: bytes) -> str:
    """A PNG file as the `src` of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
