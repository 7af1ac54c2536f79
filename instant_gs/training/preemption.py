"""Stopping on request: SIGTERM, as schedulers send it, or Ctrl-C.

The request is remembered, the training loop finishes its step, saves and stops.
"""

import os
import signal

import jax
import orbax.checkpoint as ocp


class StopRequest:
    """A context in which SIGTERM and the first Ctrl-C only ask; a second Ctrl-C interrupts at once.

    Where ``jax.distributed`` is initialised, JAX itself listens to SIGTERM, tells all hosts, and
    they agree on a step; Ctrl-C is then passed on as SIGTERM.
    """

    def __init__(self):
        self._name = None
        self._jax_listens = jax.distributed.is_initialized()
        self._before = {}

    def __enter__(self) -> "StopRequest":
        mine = (signal.SIGINT,) if self._jax_listens else (signal.SIGINT, signal.SIGTERM)
        try:
            self._before = {number: signal.signal(number, self._ask) for number in mine}
        except ValueError:  # not in the main thread: whoever owns that one decides
            self._before = {}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after(self, step: int) -> str | None:
        """The signal because of which to stop after this step, or None; alike on all hosts."""
        if self._jax_listens:
            return "SIGTERM" if ocp.utils.reached_preemption(step) else None
        return self._name

    def _ask(self, number: int, frame) -> None:
        del frame
        self._name = signal.Signals(number).name
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"{self._name}: stopping after this step; a second Ctrl-C loses it\n".encode())
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        if self._jax_listens:
            os.kill(os.getpid(), signal.SIGTERM)
