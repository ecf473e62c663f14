"""A convolutional network over the images of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rootdata.errors import ConfigError
from rootdata.models.classifier import Classifier, mlp, plain_shapes
from rootdata.models.deepsets import check_padded, pool
from rootdata.models.heads import plain_options

AXES = ("x", "y")


class CNN(Classifier):
    """Convolutions over every image, a network over the event's other inputs, then one over all of it.

    For ``layout="image"``. Each block is two convolutions of 3 x 3 with batch norm and ReLU; between blocks the larger
    one of 2 x 2 cells is taken; what is left is averaged, and its largest value taken, over the image. Objects of
    collections that are tokens are pooled as in :class:`~rootdata.models.deepsets.DeepSets`.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``:
        ``{"flat": (13,), "jets": (3, 32, 32), ...}``; ``flat`` may be absent
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    channels : of the convolutions of each block
    phi : nodes of the layers over the objects of a collection that is not drawn
    hidden : nodes of each hidden layer over the event
    wrap : axes of images, ``x`` or ``y``, on which the last cell lies beside the first, as that of phi
    dropout : probability to drop a node of ``hidden`` in training
    lr, weight_decay : of Adam

    Raises
    ------
    ConfigError
        If there is no image among the shapes, or one too small for so many blocks.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        channels: Sequence[int] = (16, 32, 64),
        phi: Sequence[int] = (64, 64),
        hidden: Sequence[int] = (128, 64),
        wrap: Sequence[str] = ("y",),
        dropout: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(classes=classes, heads=heads, decorrelate=decorrelate, lr=lr, weight_decay=weight_decay)
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        shapes, channels, phi, hidden = plain_shapes(shapes), _whole(channels), _whole(phi), _whole(hidden)
        wrap = [str(axis) for axis in wrap]
        self.save_hyperparameters()
        check_padded(shapes, who="CNN")
        self.images = find_images(shapes, blocks=len(channels))
        self.collections = [name for name in shapes if f"{name}_mask" in shapes]
        self.has_flat = "flat" in shapes
        if not channels or min(channels) < 1:
            raise ConfigError(f"model.channels: got {channels}; give each block its number of channels, at least 1")
        if set(wrap) - set(AXES):
            raise ConfigError(f"model.wrap: got {wrap}; allowed: any of {', '.join(AXES)}")
        self.convolutions = nn.ModuleList(_convolutions([shapes[name][0], *channels], wrap) for name in self.images)
        self.phi = nn.ModuleList(mlp([shapes[name][1], *phi]) for name in self.collections)
        width = 2 * channels[-1] * len(self.images) + (shapes["flat"][0] if self.has_flat else 0)
        width += sum(2 * (phi or [shapes[name][1]])[-1] for name in self.collections)
        widths = [width, *hidden]
        self.head = nn.Sequential(*mlp(widths, dropout=dropout), nn.Linear(widths[-1], self.width))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        parts = [batch["flat"]] if self.has_flat else []
        for name, convolutions in zip(self.images, self.convolutions, strict=True):
            found = convolutions(batch[name])
            parts += [found.mean(dim=(2, 3)), found.amax(dim=(2, 3))]
        for name, phi in zip(self.collections, self.phi, strict=True):
            parts.append(pool(phi, batch[name], mask=batch[f"{name}_mask"]))
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return self.shaped(logits)


class Convolution(nn.Module):
    """A convolution of 3 x 3 that keeps the size, with batch norm and ReLU.

    Parameters
    ----------
    before, after : channels
    wrap : axes at whose ends the other end goes on; elsewhere there are zeros
    """

    def __init__(self, before: int, after: int, *, wrap: Sequence[str]) -> None:
        super().__init__()
        self.wraps = ["y" in wrap, "x" in wrap]
        self.layers = nn.Sequential(nn.Conv2d(before, after, 3, bias=False), nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, before, rows, columns) to (B, after, rows, columns)."""
        for axis, wraps in zip((2, 3), self.wraps, strict=True):
            first, last = images.narrow(axis, 0, 1), images.narrow(axis, images.shape[axis] - 1, 1)
            edges = (last, first) if wraps else (torch.zeros_like(last), torch.zeros_like(first))
            images = torch.cat([edges[0], images, edges[1]], dim=axis)
        found: Tensor = self.layers(images)
        return found


def _convolutions(channels: Sequence[int], wrap: Sequence[str]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.MaxPool2d(2)] if layers else []
        layers += [Convolution(before, after, wrap=wrap), Convolution(after, after, wrap=wrap)]
    return nn.Sequential(*layers)


def find_images(shapes: Mapping[str, Sequence[int]], *, blocks: int) -> list[str]:
    """Name the images among the shapes, each large enough to be halved between so many blocks."""
    found = [name for name, shape in shapes.items() if len(shape) == 3]
    if not found:
        raise ConfigError(
            f"CNN needs a batch with images: got {', '.join(map(repr, shapes)) or 'nothing'}; allowed: layout 'image' "
            "with jagged branches; set data.layout=image, model=deepsets for layout 'tokens', or model=dnn for 'vector'"
        )
    least = 1 << max(0, blocks - 1)
    for name in found:
        if min(shapes[name][1:]) < least:
            rows, columns = shapes[name][1:]
            raise ConfigError(
                f"model.channels: got {blocks} blocks, which take images of {least} x {least} cells or more; {name!r} "
                f"has {columns} x {rows}; take fewer blocks, or more bins"
            )
    return found


def _whole(numbers: Sequence[int]) -> list[int]:
    return [int(number) for number in numbers]
