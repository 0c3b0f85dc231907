"""What a step of a flow has beside other runs: its place there, and steps that it adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgflow._calls import Calls
from pgflow.definition import Binding, FailedNeed, Step
from pgflow.errors import MisplacedCall


class InFlow(Calls):
    """A step and its flow."""

    @property
    def flow(self) -> str | None:
        """The name of the flow that this run is a step of; None: it is none."""
        return self._flow.get("flow")

    @property
    def flow_version(self) -> int | None:
        """The version of the flow that its run keeps."""
        return self._flow.get("flow_version")

    @property
    def flow_run_id(self) -> str | None:
        """The run of the flow."""
        return self._flow.get("run_id")

    @property
    def step_name(self) -> str | None:
        """The name of the step."""
        return self._flow.get("step")

    @property
    def step_type(self) -> str | None:
        """The type that the flow's definition says the step is of; None: it says none."""
        return self._flow.get("step_type")

    @property
    def step_config(self) -> dict[str, Any]:
        """The step's `config`."""
        return self._flow.get("config") or {}

    @property
    def binding(self) -> Binding | None:
        """The agent that the run is bound to in the step's `role`; None: the step has none."""
        bound = self._flow.get("binding")
        return None if bound is None else Binding(**bound)

    @property
    def element(self) -> int | None:
        """Which element of the step's `each` this run has, from 1; None: the step has none."""
        return self._flow.get("element")

    @property
    def flow_input(self) -> Any:
        """The input of the flow. One of more than 8 kB is not given to elements: MisplacedCall."""
        if self._flow.get("input_is_left_out"):
            raise MisplacedCall(
                f"the input of flow {self.flow} is too large to be given to each element of step"
                f" {self.step_name}: put what each needs into the elements"
            )
        return self._flow.get("input")

    @property
    def failures(self) -> dict[str, FailedNeed]:
        """Which of the steps that this one needs did not complete, by name, and why."""
        failures = self._flow.get("failures") or {}
        return {step: FailedNeed(**told) for step, told in failures.items()}

    @property
    def _flow(self) -> dict[str, Any]:
        return self.lease.more.get("flow") or {}

    async def add_step(
        self, step: Step | Mapping[str, object], *, needed_by: Sequence[str] = ()
    ) -> bool:
        """Add a step to the flow that this run is a step of; it begins once what it needs ended.

        `needed_by` are steps that have not begun and are to need it too. The same step again is
        harmless, so an execution that is repeated adds nothing twice: then it returns False.
        Raises BadRequest, whose `detail` has all `faults`, UnknownSchema, UnknownAgent, LeaseLost;
        AlreadyFinished where the flow has ended and this run is about to.
        Example: `await ctx.add_step(Step(name="legal", needs=[ctx.step_name]))`.
        """
        if self._read is not None:
            self._read.check("add_step")
        if self.undos is not None:  # it was added when this was done
            return False
        given = step.definition() if isinstance(step, Step) else step
        return await self._worker.add_step(self.lease, given, needed_by)
