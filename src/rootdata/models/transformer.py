"""A transformer: every object of an event looks at all others, whatever collection they are of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rootdata.errors import ConfigError
from rootdata.models.classifier import plain_shapes
from rootdata.models.encoded import EncodedClassifier, head
from rootdata.models.heads import plain_options
from rootdata.models.pairwise import NUM_FEATURES, Momenta, PairBias, pair_features, parse_pairwise

FAR_BELOW = -1e9  # of a logarithm: nothing of it is left, and no infinity appears


class Transformer(EncodedClassifier):
    """Encoded objects of all collections, and the event's flat features as one more, in layers of self-attention.

    For ``layout="tokens"`` and ``layout="jagged"``, which give the same. Layers are normalised before attention and
    before the two linear layers behind it (Xiong et al., arXiv:2002.04745). What becomes of the event, the mean over
    all objects and the flat features go through one more network. Objects have no order, events without any are as
    good as others, and padding has no influence.

    With ``pairwise`` the logarithms of ΔR, kT, z and m² of two objects are added to their attention, through a network
    of their own: the interaction features of the Particle Transformer (arXiv:2202.03772), see
    :func:`rootdata.models.pairwise.pair_features`.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``; ``flat`` may be absent
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    pairwise : collection to its columns of pt, eta, phi and mass, ``{"jets": ["Jet_pt", "Jet_eta", "Jet_phi",
        "Jet_mass"]}``; three columns for objects without mass
    bins : quantile bins of every feature
    latent : numbers that an object becomes
    layers : of attention
    attention_heads : of every layer; they divide ``latent``
    hidden : nodes of each hidden layer of the network over the event
    dropout : probability to drop a node of those in training; a quarter of it elsewhere
    lr : highest step size of AdamW
    weight_decay : of AdamW

    Raises
    ------
    ConfigError
        If the shapes are those of another layout, or a number is out of its range.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        pairwise: Mapping[str, Sequence[str]] | None = None,
        bins: int = 32,
        latent: int = 64,
        layers: int = 2,
        attention_heads: int = 4,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.4,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
    ) -> None:
        shapes, hidden = plain_shapes(shapes), [int(width) for width in hidden]
        jagged, padded = _collections(shapes)
        names = [*(["flat"] if "flat" in shapes else []), *jagged, *padded]
        features = {name: shapes[name][-1] for name in names}
        super().__init__(
            features, classes=classes, heads=heads, decorrelate=decorrelate, bins=bins, lr=lr, weight_decay=weight_decay
        )
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        pairwise = parse_pairwise(pairwise, [*jagged, *padded]) or None
        _check_sizes(latent, layers, attention_heads)
        self.save_hyperparameters()
        self.collections, self.jagged, self.has_flat = [*jagged, *padded], frozenset(jagged), "flat" in shapes
        self.objects = nn.ModuleList(
            nn.Sequential(
                nn.Linear(self.width_of(name), 2 * latent),
                nn.SiLU(),
                nn.Dropout(dropout / 4),
                nn.Linear(2 * latent, latent),
                nn.SiLU(),
            )
            for name in self.collections
        )
        num_flat = self.width_of("flat") if self.has_flat else 0
        self.event = nn.Sequential(nn.Linear(num_flat, latent), nn.SiLU()) if self.has_flat else None
        self.kinds = nn.Parameter(torch.zeros(1 + len(self.collections), latent))
        self.layers = nn.ModuleList(Layer(latent, attention_heads, dropout=dropout / 4) for _ in range(layers))
        self.norm = nn.LayerNorm(latent)
        self.momenta = nn.ModuleDict({f"of_{name}": Momenta(columns) for name, columns in (pairwise or {}).items()})
        self.bias = PairBias(attention_heads) if pairwise else None
        self.network = head(2 * latent + num_flat, hidden, self.width, dropout=dropout)

    def setup(self, stage: str) -> None:
        """Find the momenta among the features before a fit; see :meth:`EncodedClassifier.setup`.

        Raises
        ------
        ConfigError
            As :meth:`rootdata.models.pairwise.Momenta.bind`.
        """
        super().setup(stage)
        if stage == "fit":
            self.bind_momenta(getattr(self.trainer, "datamodule", None))

    def bind_momenta(self, data: Any) -> None:
        """Learn from a data module where momenta are, and how they were scaled; :meth:`setup` does it before a fit."""
        for name in self.collections:
            if f"of_{name}" in self.momenta:
                cast("Momenta", self.momenta[f"of_{name}"]).bind(data, name)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        x, there, bias, flat = self._tokens(batch)
        for layer in self.layers:
            x = layer(x, bias)
        x, real = self.norm(x), there.unsqueeze(-1)
        mean = torch.where(real, x, torch.zeros_like(x)).sum(dim=1) / real.sum(dim=1)
        logits: Tensor = self.network(torch.cat([x[:, 0], mean, *flat], dim=1))
        return self.shaped(logits)

    @torch.no_grad()
    def attention(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Say how much every token takes of every other, as the network is now: call ``eval()`` before.

        Parameters
        ----------
        batch : as for :meth:`forward`

        Returns
        -------
        (layers, B, heads, N, N), whose last axis sums to 1 and is 0 where there is no object, and which tokens there
        are, (B, N): the event's own first, then the objects of all :attr:`collections`, padded ones as well
        """
        x, there, bias, _ = self._tokens(batch)
        found = []
        for layer in self.layers:
            found.append(layer.weights(x, bias))
            x = layer(x, bias)
        return torch.stack(found), there

    def _tokens(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Make tokens (B, N, latent), which are there (B, N), the bias of attention, and the encoded flat features."""
        objects, masks, momenta = zip(*(self._seen(name, batch) for name in self.collections), strict=True)
        flat = [self.encoded("flat", batch["flat"], torch.ones_like(batch["flat"]))] if self.has_flat else []
        event = self.kinds[:1].expand(masks[0].shape[0], -1)
        event = event if self.event is None else event + self.event(flat[0])
        x = torch.cat([event.unsqueeze(1), *objects], dim=1)
        there = torch.cat([masks[0].new_ones(event.shape[0], 1), *masks], dim=1)
        bias = torch.where(there, 0.0, FAR_BELOW).to(x.dtype)[:, None, None, :]
        if self.bias is not None:
            bias = bias + functional.pad(self.bias(*self._pairs(masks, momenta)), (1, 0, 1, 0))  # the event in front
        return x, there, bias, flat

    def _seen(self, name: str, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Look at the objects of a collection: (B, N, latent), which are there (B, N), and momenta (B, N, 4)."""
        values, number = batch[name], self.collections.index(name)
        if name in self.jagged:
            place, there = places(batch[f"{name}_offsets"])
            real = torch.ones_like(values)
        else:
            place, there = None, batch[f"{name}_mask"]
            real = there.unsqueeze(-1).expand_as(values)
            values = torch.where(real, values, torch.zeros_like(values))
        latent = self.objects[number](self.encoded(name, values, real)) + self.kinds[1 + number]
        key = f"of_{name}"
        momenta = self.momenta[key](values) if key in self.momenta else torch.zeros_like(values[..., :1])
        if place is not None:
            latent, momenta = laid_out(latent, place), laid_out(momenta, place)
        return latent, there, momenta.expand(*there.shape, NUM_FEATURES)

    def _pairs(self, masks: Sequence[Tensor], momenta: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Give the features of all pairs of objects, (B, N, N, 4), and of which both have a momentum, (B, N, N)."""
        named = [f"of_{name}" in self.momenta for name in self.collections]
        paired = [mask if is_named else torch.zeros_like(mask) for mask, is_named in zip(masks, named, strict=True)]
        there = torch.cat(paired, dim=1)
        return pair_features(torch.cat(list(momenta), dim=1)), there.unsqueeze(2) & there.unsqueeze(1)


class Layer(nn.Module):
    """Self-attention, then two linear layers, each after a normalisation and added to what was there.

    Parameters
    ----------
    width : numbers of an object
    heads : of attention
    dropout : probability to drop a number of what is added
    """

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.linear = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map (B, N, width), with a bias of attention that (B, heads, N, N) can be made of."""
        query, key, value = self._parts(x)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.dropout(self.outputs(seen.transpose(1, 2).flatten(start_dim=2)))
        made: Tensor = x + self.dropout(self.linear(self.second(x)))
        return made

    def weights(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the attention of :meth:`forward`, (B, heads, N, N): how much a row takes of every column."""
        query, key, _ = self._parts(x)
        return (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1]) + bias).softmax(dim=-1)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Make queries, keys and values, each (B, heads, N, width of a head)."""
        parts = self.inputs(self.first(x)).unflatten(-1, (3, self.heads, -1))
        return parts.permute(2, 0, 3, 1, 4).unbind(dim=0)


def places(offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Say where in a rectangle the objects of events lie, of which the offsets are given.

    Parameters
    ----------
    offsets : (B + 1,)

    Returns
    -------
    the number of the object at each place, and which places have one, both (B, N); N is 1 at least, so that there are
    places in events without objects
    """
    counts, total = offsets.diff(), offsets[-1]
    most = torch.cat([counts.new_ones(1), counts]).max().item()
    torch._check(most >= 1)  # type: ignore[no-untyped-call]  # noqa: SLF001 - how torch.export is told so
    place = torch.arange(most, device=offsets.device)
    there = place < counts.unsqueeze(1)
    return torch.where(there, offsets[:-1].unsqueeze(1) + place, total), there


def laid_out(objects: Tensor, place: Tensor) -> Tensor:
    """Lay objects (N, features) out at their places: (B, most objects, features), 0 where there is none."""
    return torch.cat([objects, objects.new_zeros(1, objects.shape[1])])[place]


def _collections(shapes: Mapping[str, Sequence[int]]) -> tuple[list[str], list[str]]:
    """Name the collections that are jagged, and those that are padded."""
    jagged = [name for name in shapes if f"{name}_offsets" in shapes]
    padded = [name for name, shape in shapes.items() if f"{name}_mask" in shapes and len(shape) == 2]
    drawn = [name for name, shape in shapes.items() if len(shape) == 3]
    if not (jagged or padded) or drawn:
        raise ConfigError(
            "Transformer needs a batch with collections of objects, and nothing drawn: got "
            f"{', '.join(map(repr, shapes)) or 'nothing'}; allowed: layout 'tokens' or 'jagged' with jagged branches; "
            "set data.layout=tokens, or model=mlp for layout 'vector', model=cnn for 'image'"
        )
    return jagged, padded


def _check_sizes(latent: int, layers: int, attention_heads: int) -> None:
    for name, number in (("latent", latent), ("layers", layers), ("attention_heads", attention_heads)):
        if number < 1:
            raise ConfigError(f"model.{name}: got {number}; expected 1 or more")
    if latent % attention_heads:
        raise ConfigError(
            f"model.attention_heads: got {attention_heads}, which do not divide model.latent={latent}; choose a divisor"
        )
