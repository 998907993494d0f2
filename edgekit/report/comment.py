"""A report in short, for a comment that a CI job leaves: verdict, gates and table, without a link."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgekit.report.headline import caveat, gates, sentence
from edgekit.report.table import markdown, stage_table


def comment(report: Mapping[str, Any]) -> str:
    """GitHub-flavoured Markdown.

    Names in a report are shown as they are: nothing in them becomes markup, a link, a mention or a reference.
    """
    holds = report["verdict"]["holds"]
    lines = [f"### {'✅' if holds else '❌'} edgekit: the budget {'holds' if holds else 'is missed'}", ""]
    lines += [escaped(" ".join(filter(None, (sentence(report), caveat(report))))), ""]
    rows = [
        (escaped(gate.name), gate.measured, gate.limit, "✅ holds" if gate.holds else "❌ missed")
        for gate in gates(report)
    ]
    if rows:
        lines += [markdown(("gate", "measured", "limit", "verdict"), rows), ""]
    headers, cells = stage_table(report)
    lines += [markdown([escaped(each) for each in headers], [[escaped(each) for each in row] for row in cells])]
    notes = [f"- {escaped(note)}" for note in report.get("notes", ())]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def escaped(text: str) -> str:
    """Text in which Markdown sees nothing but text.

    >>> escaped("<b>|@me")
    '&lt;b&gt;&#124;&#64;me'
    """
    plain = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    marked = re.sub(r"[|`*_~@#\\]", lambda found: f"&#{ord(found[0])};", plain.replace("&#", "&amp;#"))
    for link in ("](", "][", "://", "www."):
        marked = marked.replace(link, f"{link[0]}&#{ord(link[1])};{link[2:]}")
    return marked
