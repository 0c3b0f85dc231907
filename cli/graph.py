"""The graph of a flow, as text: for Mermaid, for Graphviz, and for a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Definition = Mapping[str, Any]


def with_gates(definition: Definition) -> Definition:
    """Return the definition with each gate of a step as a step of its own, STEP/GATE.

    What needs the step stands behind its last gate.
    """

    def gates(step: Definition) -> list[str]:
        return [f"{step['name']}/{gate['name']}" for gate in step.get("gates", ())]

    last = {step["name"]: [step["name"], *gates(step)][-1] for step in definition["steps"]}
    steps: list[Definition] = []
    for step in definition["steps"]:
        steps.append({**step, "needs": [last[needed] for needed in step.get("needs", ())]})
        for gate in gates(step):
            before = steps[-1]["name"]
            steps.append({"name": gate, "type": "approval_gate", "needs": [before]})
    return {**definition, "steps": steps}


def edges(definition: Definition) -> Iterator[tuple[str, str, str]]:
    """Yield which step comes before which, and a label: `fails` where it runs on failure."""
    for step in definition["steps"]:
        for needed in step.get("needs", ()):
            yield needed, step["name"], ""
        on_failure = step.get("on_failure")
        if isinstance(on_failure, Mapping):
            yield step["name"], on_failure["run"], "fails"


def mermaid(definition: Definition) -> str:
    """Return a Mermaid flowchart."""
    places, asking = _places(definition), _asking(definition)
    lines = []
    for step, place in places.items():
        first, last = "{}" if step in asking else "[]"
        lines.append(f"    s{place}{first}{json.dumps(step)}{last}")
    for before, after, label in edges(definition):
        arrow = f"-- {label} -->" if label else "-->"
        lines.append(f"    s{places[before]} {arrow} s{places[after]}")
    return "\n".join(["flowchart TD", *lines])


def dot(definition: Definition) -> str:
    """Return a graph for Graphviz."""
    asking = _asking(definition)
    lines = [
        f"    {json.dumps(step)}{' [shape=diamond]' if step in asking else ''};"
        for step in _places(definition)
    ]
    for before, after, label in edges(definition):
        style = f" [label={json.dumps(label)}]" if label else ""
        lines.append(f"    {json.dumps(before)} -> {json.dumps(after)}{style};")
    return "\n".join([f"digraph {json.dumps(definition['name'])} {{", *lines, "}"])


def plain(definition: Definition) -> str:
    """Return a line for each step, layer below layer, with what it needs behind an arrow."""
    needs: dict[str, list[str]] = {step: [] for step in _places(definition)}
    for before, after, label in edges(definition):
        needs[after].append(f"{before} ({label})" if label else before)
    layers = layers_of(definition)
    width = max(map(len, needs))
    lines = []
    for step in sorted(needs, key=lambda step: layers[step]):
        sources = f"  <- {', '.join(needs[step])}" if needs[step] else ""
        lines.append(f"{layers[step]}  {step:<{width}}{sources}".rstrip())
    return "\n".join(lines)


FORMATS: Final[dict[str, Callable[[Definition], str]]] = {
    "text": plain,
    "mermaid": mermaid,
    "dot": dot,
}


def _places(definition: Definition) -> dict[str, int]:
    return {step["name"]: place for place, step in enumerate(definition["steps"], 1)}


def _asking(definition: Definition) -> set[str]:
    """Return the steps that somebody approves or not."""
    return {step["name"] for step in definition["steps"] if step.get("type") == "approval_gate"}


def layers_of(definition: Definition) -> dict[str, int]:
    """Return how many steps the longest way to each has, itself included."""
    after: dict[str, list[str]] = {step: [] for step in _places(definition)}
    left = dict.fromkeys(after, 0)
    for before, step, _ in edges(definition):
        after[before].append(step)
        left[step] += 1
    layers = {step: 1 for step, many in left.items() if many == 0}
    queue = list(layers)
    for before in queue:
        for step in after[before]:
            layers[step] = max(layers.get(step, 1), layers[before] + 1)
            left[step] -= 1
            if left[step] == 0:
                queue.append(step)
    return layers
