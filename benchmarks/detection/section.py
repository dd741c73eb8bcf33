"""The section of docs/detection.md that another benchmark writes: it stays when the rest of the page is made anew."""

from __future__ import annotations

BEGIN, END = "<!-- divergence: begin -->", "<!-- divergence: end -->"


def find_section(page: str) -> str:
    """The section with its marks; empty where the page has none."""
    _, begin, rest = page.partition(BEGIN)
    body, end, _ = rest.partition(END)
    return f"{BEGIN}{body}{END}" if begin and end else ""


def put_section(page: str, section: str) -> str:
    """The page with this section in the place of its own, or at its end; unchanged for an empty one."""
    if not section:
        return page
    own = find_section(page)
    return page.replace(own, section) if own else f"{page.rstrip()}\n\n{section}\n"
