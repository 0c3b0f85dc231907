"""The graph of a flow's run as SVG: layers from left to right, each step with its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from .graph import edges, layers_of
from .report_text import Report, line

# More than these nobody can read.
MOST_STEPS: Final = 300
_WIDTH, _HEIGHT = 168, 46
_GAP_X, _GAP_Y, _MARGIN = 56, 18, 12
_NAME_LENGTH: Final = 21
# Of a step with several elements, the first of these that one of them is in.
_ORDER: Final = (
    *("failed", "rejected", "expired", "cancelled", "running", "waiting", "pending"),
    *("completed", "skipped"),
)

Place = tuple[int, int]
Step = Mapping[str, Any]


def drawing(report: Report) -> str:
    """Return the graph as an svg element; nothing for what has none, or too large a one."""
    nodes = _nodes(report)
    if report["flow"] is None or not 1 <= len(nodes) <= MOST_STEPS:
        return ""
    graph = {
        "steps": [
            {"name": name, "needs": [n for n in found[0]["needs"] if n in nodes]}
            for name, found in nodes.items()
        ]
    }
    layers = layers_of(graph)
    places = _places({name: layers[name] for name in nodes})
    width = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>']
    parts.append("<title>The steps, from left to right, and their states</title>")
    for before, after, _ in edges(graph):
        dashed = nodes[after][0]["join"] == "one_failed"
        parts.append(_arrow(places[before], places[after], dashed=dashed))
    parts += (_box(name, found, places[name]) for name, found in nodes.items())
    return "\n".join([*parts, "</svg>"])


def _nodes(report: Report) -> dict[str, list[Step]]:
    """Return the steps by name, each with the elements of it that count.

    One of which all lines are voided is gone: it was added by a step that was done again.
    """
    nodes: dict[str, list[Step]] = {}
    last: dict[str, int] = {}
    for step in report["steps"]:
        name, version = step["key"], step["version"] or 0
        if version > last.get(name, -1):
            nodes[name] = []
            last[name] = version
        nodes[name].append(step)
    return {name: found for name, found in nodes.items() if found[0]["state"] != "voided"}


def _places(layers: Mapping[str, int]) -> dict[str, Place]:
    """Return the upper left corners: each layer in the middle of the tallest."""
    steps = Counter(layers.values())
    tallest = max(steps.values())
    drawn, places = Counter[int](), {}
    for name, layer in layers.items():
        rows = drawn[layer] + (tallest - steps[layer]) / 2
        down = _MARGIN + round(rows * (_HEIGHT + _GAP_Y))
        places[name] = (_MARGIN + (layer - 1) * (_WIDTH + _GAP_X), down)
        drawn[layer] += 1
    return places


def _arrow(before: Place, after: Place, *, dashed: bool) -> str:
    x1, y1 = before[0] + _WIDTH, before[1] + _HEIGHT // 2
    x2, y2 = after[0], after[1] + _HEIGHT // 2
    half = (x1 + x2) // 2
    path = f"M{x1} {y1} C{half} {y1} {half} {y2} {x2 - 7} {y2}"
    head = f"M{x2} {y2} l-8 -4 v8 z"
    kind = ' class="edge fails"' if dashed else ' class="edge"'
    return f'<path{kind} d="{path}"/><path class="head" d="{head}"/>'


def _box(name: str, found: list[Step], place: Place) -> str:
    x, y = place
    shown = line(name)
    short = shown if len(shown) <= _NAME_LENGTH else f"{shown[: _NAME_LENGTH - 1]}…"
    state = _state(found)
    return "".join(
        [
            f'<g class="step {escape(state)}"><title>{escape(shown)}: {escape(state)}</title>',
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
            f'<text class="name" x="{x + 10}" y="{y + 19}">{escape(short)}</text>',
            f'<text x="{x + 10}" y="{y + 36}">{escape(", ".join(_words(found, state)))}</text></g>',
        ]
    )


def _state(found: list[Step]) -> str:
    states = [step["state"] for step in found]
    return str(min(states, key=lambda s: _ORDER.index(s) if s in _ORDER else len(_ORDER)))


def _words(found: list[Step], state: str) -> Iterator[str]:
    yield state
    if len(found) > 1:
        yield f"{sum(s['state'] == 'completed' for s in found)} of {len(found)}"
    elif found[0]["attempts"] > 1:
        yield f"{found[0]['attempts']} attempts"
    if found[0]["visits"] > 1:
        yield f"{found[0]['visits']} visits"
