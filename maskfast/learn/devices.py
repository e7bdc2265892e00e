"""A Learner in each of several processes goes in; they train one network on shares of the same batches."""

import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.distributed import DistributedTrainer
from torch import distributed

from maskfast.core.errors import ConfigError
from maskfast.learn.loader import PictureLoader
from maskfast.learn.ranks import count_ranks, get_rank


def share_loaders(dls: DataLoaders) -> None:
    """Let each process take its part of every batch, so that a step sees the pictures it sees on one device.

    Raises ConfigError where a batch cannot be shared equally, or leaves a process a single picture.
    """
    ranks, size = count_ranks(), dls.train.bs
    if size % ranks or size // ranks < 2:
        raise ConfigError(
            f"batch_size: {size} pictures can't be shared by {ranks} devices; say a multiple, 2 or more each"
        )
    if type(dls.train) is not PictureLoader:
        raise ConfigError("scenes: made scenes can't be shared by several devices; leave out scenes, or --devices")
    for loader in dls.loaders:
        assert isinstance(loader, PictureLoader)
        loader.share = (get_rank(), ranks)
    dls.train.bs = size // ranks


def make_device_callbacks(device: torch.device) -> list[Callback]:
    """The callbacks of a fit that several processes do together."""
    return [SharedTraining(cpu=device.type == "cpu"), SameBuffers()]


class SharedTraining(DistributedTrainer):  # type: ignore[misc]
    """fastai's DistributedTrainer, for loaders that share themselves and for processors as well as for GPUs.

    The learner's model stays the plain one, whose state has the names a bundle has; it is wrapped only while a batch
    runs through it. fastai's DistributedDL asks for CUDA, and its batches are not those of one device.
    """

    order = 13  # after the memory format and the precision are set

    def __init__(self, *, cpu: bool) -> None:
        super().__init__(sync_bn=False, cpu=cpu)

    def before_fit(self) -> None:
        """Wrap the model, which gives all processes the first one's weights."""
        self.plain = self.learn.model
        self.wrapped = self.accelerator.prepare(self.plain)

    def before_train(self) -> None:
        """Leave the loader as it is: it shares itself."""

    def before_validate(self) -> None:
        """Leave the loader as it is: it shares itself."""

    def before_batch(self) -> None:
        """Train through the wrapper, which averages the gradients."""
        if self.learn.training:
            self.learn.model = self.wrapped

    def after_pred(self) -> None:
        """Let everybody else see the plain model."""
        self.learn.model = self.plain

    def after_loss(self) -> None:
        """Where one process has a loss that is no number, all have: they stop together."""
        if self.learn.training:
            finite = torch.isfinite(self.learn.loss.detach()).float()
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
            self.learn.loss = self.learn.loss / finite

    def after_fit(self) -> None:
        """Take the wrapper away."""
        self.learn.model = self.plain
        del self.wrapped


class SameBuffers(Callback):  # type: ignore[misc]
    """Validate with the first process's running statistics everywhere."""

    order = 56  # after AveragedWeights put theirs in place, before History measures

    def before_validate(self) -> None:
        """Send them."""
        for buffer in self.learn.model.buffers():
            distributed.broadcast(buffer, 0)
