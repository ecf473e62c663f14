"""What two objects are to each other: features of pairs, from momenta in physical units, as a bias of attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rootdata.errors import ConfigError, nearest
from rootdata.models.heads import LARGEST_LOG
from rootdata.scaling.curves import SIGNED_LOG, name_of

NUM_FEATURES = 4
WIDTH = 32  # of the layer between features of a pair and the heads of attention
LEAST = 1e-3  # of everything whose logarithm is taken: distances, and momenta and masses in the unit of the data
FARTHEST = 10.0  # pseudorapidity beyond which it is cut off


def parse_pairwise(plain: Mapping[str, Any] | None, collections: Sequence[str]) -> dict[str, list[str]]:
    """Check which columns hold the momenta of which collections, as far as that is possible without the data.

    Parameters
    ----------
    plain : collection to its columns of pt, eta, phi and mass; without the last objects have no mass
    collections : those that the network takes

    Raises
    ------
    ConfigError
        For a collection that there is not, or another number of columns.
    """
    if plain is None:
        return {}
    example = "{jets: [Jet_pt, Jet_eta, Jet_phi, Jet_mass]}"
    if not isinstance(plain, Mapping) or not plain:
        raise ConfigError(f"model.pairwise: got {plain!r}; expected collections with their columns, {example}, or null")
    found = {}
    for name, columns in plain.items():
        where = f"model.pairwise.{name}"
        if name not in collections:
            raise ConfigError(f"{where}: the network takes no such collection; {nearest(str(name), collections)}")
        if isinstance(columns, str) or not isinstance(columns, Sequence) or len(columns) not in {3, 4}:
            raise ConfigError(f"{where}: got {columns!r}; expected the columns of pt, eta, phi and mass, as {example}")
        found[str(name)] = [str(column) for column in columns]
    return found


class Momenta(nn.Module):
    """Finds the momenta of a collection among its features, and undoes their scaling.

    Where they are and how they were scaled is part of a checkpoint, and of the exported graph.

    Parameters
    ----------
    columns : of pt, eta, phi and, if objects have any, mass
    """

    places: Tensor
    shift: Tensor
    unit: Tensor
    is_log: Tensor

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = list(columns)
        self.register_buffer("places", torch.zeros(len(columns), dtype=torch.int64))
        self.register_buffer("shift", torch.zeros(len(columns)))
        self.register_buffer("unit", torch.ones(len(columns)))
        self.register_buffer("is_log", torch.zeros(len(columns), dtype=torch.bool))

    def bind(self, data: Any, collection: str) -> None:
        """Ask a data module where the columns are, and how they are scaled.

        Parameters
        ----------
        data : a :class:`rootdata.RootDataModule`
        collection : in which they are

        Raises
        ------
        ConfigError
            For a column that the collection does not have, or that is scaled in a way that can't be undone.
        """
        where = f"model.pairwise.{collection}"
        if not hasattr(data, "scanned"):
            raise ConfigError(
                f"{where}: the network needs to know how {', '.join(self.columns)} are scaled, which a RootDataModule "
                "knows: give that to the trainer"
            )
        branches = next(c.branches for c in data.scanned.layout.collections if c.name == collection)
        for i, column in enumerate(self.columns):
            if column not in branches:
                raise ConfigError(
                    f"{where}: {column!r} is no column of the collection; {nearest(column, branches)}; name its pt, "
                    "eta, phi and mass, or add the column to the branches"
                )
            scaling = data.scanned.transforms[column]
            if scaling.curve not in {None, SIGNED_LOG}:
                raise ConfigError(
                    f"{where}: {column!r} is scaled by {name_of(scaling.curve)}, which the network can't undo; "
                    f"scale it by standard, minmax, robust, log or none: data.scale.{column}=standard"
                )
            self.places[i], self.is_log[i] = branches.index(column), scaling.curve == SIGNED_LOG
            self.shift[i], self.unit[i] = scaling.shift, 1.0 / scaling.factor

    def forward(self, objects: Tensor) -> Tensor:
        """Give pt, eta, phi and mass, (..., 4), of objects (..., features)."""
        found = objects.index_select(-1, self.places) * self.unit + self.shift
        size = torch.exp(found.abs().clamp(max=LARGEST_LOG)) - 1.0
        found = torch.where(self.is_log, torch.where(found < 0.0, -size, size), found)
        return found if len(self.columns) > 3 else torch.cat([found, torch.zeros_like(found[..., :1])], dim=-1)


def pair_features(momenta: Tensor) -> Tensor:
    """Compute logarithms of ΔR, kT, z and m² of all pairs.

    ΔR² = (y_a - y_b)² + (φ_a - φ_b)², kT = min(pT_a, pT_b) ΔR, z = min(pT_a, pT_b) / (pT_a + pT_b) and
    m² = (E_a + E_b)² - |p_a + p_b|², with rapidities y: equations 3 to 6 of Qu, Li, Qian, "Particle Transformer for Jet
    Tagging", arXiv:2202.03772. m² is written as a sum of what is never negative, so that float32 keeps its digits.

    Parameters
    ----------
    momenta : (B, objects, 4) pt, eta, phi, mass; impossible ones are moved to the nearest possible

    Returns
    -------
    (B, objects, objects, 4), finite
    """
    pt, eta, phi, mass = momenta.unbind(dim=-1)
    pt, eta, mass = pt.clamp(min=LEAST), eta.clamp(-FARTHEST, FARTHEST), mass.clamp(min=0.0)
    transverse = (pt.square() + mass.square()).sqrt()
    rapidity = torch.asinh(pt / transverse * torch.sinh(eta))
    first, second = ([v.unsqueeze(i) for v in (pt, rapidity, phi, mass.square(), transverse)] for i in (2, 1))
    (pt_a, y_a, phi_a, m2_a, mt_a), (pt_b, y_b, phi_b, m2_b, mt_b) = first, second
    delta_y, turn = y_a - y_b, phi_a - phi_b
    delta_phi = turn - 2 * math.pi * torch.round(turn / (2 * math.pi))
    distance = (delta_y.square() + delta_phi.square()).sqrt().clamp(min=LEAST)
    least, product = torch.minimum(pt_a, pt_b), pt_a * pt_b
    apart = 2 * (torch.sinh(delta_y / 2).square() + torch.sin(delta_phi / 2).square())  # cosh Δy - cos Δφ
    rest = (m2_a * pt_b.square() + m2_b * pt_a.square() + m2_a * m2_b) / (
        mt_a * mt_b + product
    )  # mT_a mT_b - pT_a pT_b
    mass2 = m2_a + m2_b + 2 * (rest * torch.cosh(delta_y) + product * apart)
    found = [distance, (least * distance).clamp(min=LEAST), least / (pt_a + pt_b), mass2.clamp(min=LEAST**2)]
    return torch.stack(found, dim=-1).log()


class PairBias(nn.Module):
    """A network from features of pairs to a bias for every head of attention.

    Parameters
    ----------
    heads : of attention
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(NUM_FEATURES)  # over real pairs alone
        self.network = nn.Sequential(nn.Linear(NUM_FEATURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, heads))

    def forward(self, features: Tensor, there: Tensor) -> Tensor:
        """Map features (B, N, N, 4) of the pairs that are ``there`` (B, N, N) to (B, heads, N, N), 0 elsewhere."""
        if self.training:
            real = features[there]
            is_enough = len(real) > 1  # for a variance
            made: Tensor = self.network(self.norm(real) if is_enough else self._normed(real))
            bias = made.new_zeros((*there.shape, made.shape[-1]))
            bias[there] = made
        else:
            made = self.network(self._normed(features))
            bias = torch.where(there.unsqueeze(-1), made, torch.zeros_like(made))
        return bias.permute(0, 3, 1, 2)

    def _normed(self, features: Tensor) -> Tensor:
        """Normalise as it was learnt so far."""
        norm = self.norm
        shape, flattened = features.shape, features.reshape(-1, NUM_FEATURES)
        made = functional.batch_norm(
            flattened, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
        return made.reshape(shape)
