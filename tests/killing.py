"""A training goes in that ends, as a kill would end it, after a chosen batch."""

import pytest

from maskfast.learn.checkpoint import Checkpointer


class KilledError(Exception):
    """Stands for a kill: nothing of ours catches it."""


def kill_at_batch(patch: pytest.MonkeyPatch, number: int) -> None:
    after_batch, counted = Checkpointer.after_batch, [0]

    def count(self: Checkpointer) -> None:
        after_batch(self)
        counted[0] += self.learn.training
        if counted[0] == number:
            raise KilledError("at a batch")

    patch.setattr(Checkpointer, "after_batch", count)
