"""What must become of the steps of a flow: a few lines of Python that know no SQL.

A step is decided on when one that it needs ends, or when the flow goes back to it; by then the
states of all that it needs say what its join makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = {"completed", "skipped", "failed", "rejected"}
FAILED = {"failed", "rejected"}


@dataclass(frozen=True)
class Step:
    """A step as it is defined; `when` is the step whose output must be 1, or "" for the input."""

    name: str
    needs: tuple[str, ...] = ()
    join: str | None = None
    on_failure: str = "fail"
    runs_on_failure: str | None = None
    when: str | None = None
    is_gate: bool = False
    max_attempts: int = 1

    def definition(self) -> dict[str, Any]:
        """Return the step as define_flow takes it."""
        more: dict[str, Any] = {"needs": list(self.needs)}
        if self.is_gate:
            more |= {"type": "approval_gate"}
        else:
            more["retry"] = {"max_attempts": self.max_attempts, "base": 1, "longest": 1}
        if self.join:
            more["join"] = self.join
        if self.when is not None:
            more["when"] = f"$inputs.{self.when} == 1" if self.when else "$input.n == 1"
        wanted = self.runs_on_failure
        more["on_failure"] = {"run": wanted} if wanted else self.on_failure
        return {"name": self.name, **more}


@dataclass
class Dag:
    """A flow's run: the states of its steps, and what each was given when it was begun."""

    steps: dict[str, Step]
    given: int
    state: str = "running"
    states: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    begun: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, dict[str, int]] = field(default_factory=dict)
    round: int = 0
    added_in: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.needs = {
            name: {*step.needs, *(s.name for s in self.steps.values() if s.runs_on_failure == name)}
            for name, step in self.steps.items()
        }
        self.states = dict.fromkeys(self.steps, "pending")
        self._decide(name for name in self.steps if not self.needs[name])

    def running(self, *, gates: bool) -> list[str]:
        """Return the gates that are open, or the steps that a worker has to execute."""
        return [
            n for n, s in self.states.items() if s == "running" and self.steps[n].is_gate == gates
        ]

    def before(self, name: str) -> set[str]:
        """Return the steps that a step needs, and that those need, and so on."""
        return {n for need in self.needs[name] for n in (need, *self.before(need))}

    def complete(self, outputs: Mapping[str, int]) -> None:
        """Have steps complete together."""
        self.outputs |= outputs
        self._end(dict.fromkeys(outputs, "completed"))

    def fail(self, name: str, *, retried: bool) -> None:
        """Have an execution fail."""
        self.attempts[name] += 1
        if not retried or self.attempts[name] >= self.steps[name].max_attempts:
            self._end({name: "failed"})

    def reject(self, name: str) -> None:
        """Have a person reject a gate."""
        self._end({name: "rejected"})

    def add(self, step: Step, needed_by: Iterable[str], adder: str | None) -> None:
        """Add a step, which a step adds or somebody from outside."""
        self.steps[step.name] = step
        self.added_in[step.name] = adder
        self.needs[step.name] = {*step.needs}
        self.states[step.name] = "pending"
        for name in needed_by:
            self.needs[name].add(step.name)
        self._decide([step.name])

    def go_back(self, name: str) -> None:
        """Have the flow do a step again, and all after it; what one of these added is gone."""
        self.round += 1
        again = self._grown(
            {name}, lambda n, grown: self.needs[n] & grown or self.added_in.get(n) in grown
        )
        added = {n for n in again if self.added_in.get(n) in again}
        gone = self._grown(added, lambda n, grown: {*self.steps[n].needs} & grown)
        for after in again - gone:
            self.states[after] = "pending"
            self.attempts[after] = 0
        for name_gone in gone:
            del self.steps[name_gone], self.needs[name_gone], self.states[name_gone]
        for left in self.steps:
            self.needs[left] -= gone
        self._decide([name])

    def _grown(self, names: set[str], joins: Callable[[str, set[str]], object]) -> set[str]:
        grown = {*names}
        while more := {n for n in self.steps if n not in grown and joins(n, grown)}:
            grown |= more
        return grown

    def _end(self, ends: Mapping[str, str]) -> None:
        self.states |= ends
        for name, step in self.steps.items():
            takes_failure = step.on_failure == "continue" or step.runs_on_failure
            if ends.get(name) in FAILED and not takes_failure:
                self.state = "failed" if ends[name] == "failed" else "cancelled"
                unended = (n for n, s in self.states.items() if s not in ENDED)
                self.states |= dict.fromkeys(unended, "cancelled")
                return
        self._decide(name for name in self.steps if self.needs[name] & ends.keys())

    def _decide(self, names: Iterable[str]) -> None:
        touched = list(names)
        while touched:
            verdicts = {n: self._verdict(n) for n in touched if self.states[n] == "pending"}
            self.states |= verdicts
            begun = [n for n, verdict in verdicts.items() if verdict == "running"]
            self.begun.update(begun)
            self.inputs |= {n: self._input(n) for n in begun}
            skipped = {n for n, verdict in verdicts.items() if verdict == "skipped"}
            touched = [n for n in self.steps if self.needs[n] & skipped]
        if all(state in ENDED for state in self.states.values()):
            self.state = "completed"

    def _input(self, name: str) -> dict[str, int]:
        if not self.needs[name]:
            return {"n": self.given}
        return {n: self.outputs[n] for n in self.needs[name] if self.states[n] == "completed"}

    def _verdict(self, name: str) -> str:
        step = self.steps[name]
        verdict = self._joined(step)
        if verdict == "running" and step.when is not None:
            told = self._input(name).get(step.when) if step.when else self.given
            return "running" if told == 1 else "skipped"
        return verdict

    def _joined(self, step: Step) -> str:
        states = [self.states[need] for need in self.needs[step.name]]
        ended = [state for state in states if state in ENDED]
        completed, failed = "completed" in ended, bool(FAILED & {*ended})
        runs_on_failure = any(s.runs_on_failure == step.name for s in self.steps.values())
        join = step.join or ("one_failed" if runs_on_failure else "all")
        if not states or (join == "any" and completed) or (join == "one_failed" and failed):
            return "running"
        if {"all": {*ended} - {"completed"}, "none_failed": failed}.get(join):
            return "skipped"
        if len(ended) < len(states):
            return "pending"
        return "skipped" if join in {"any", "one_failed"} else "running"
