"""Batches as JAX arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Array, Batches

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise LibraryError.of("jax", error, install="rootdata[jax]") from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule

JaxTriple = tuple[dict[str, jax.Array], jax.Array, jax.Array]


class JaxBatches:
    """The batches of one part as JAX arrays; iterating gives the next epoch.

    On a machine whose one device is its CPU, memory is shared where an array begins at a multiple of 64 bytes, as JAX
    wants it. Elsewhere it is copied, to JAX's default device. Whole numbers have 32 bits unless JAX was told otherwise.
    With ``drop_last=True`` in the data all training batches have one shape, so that a compiled step is compiled once.

    Parameters
    ----------
    data : a data module
    part : ``train``, ``val`` or ``test``
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`

    Raises
    ------
    ConfigError, DataError
        As :class:`rootdata.frameworks.batches.Batches`.
    """

    def __init__(self, data: RootDataModule, part: str = "train", *, truth: str | None = None) -> None:
        self._source = Batches(data, part, truth=truth)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[JaxTriple]:
        """Yield inputs by name, truth and weights of the batches of the next epoch."""
        for inputs, truth, weight in self._source:
            yield {name: as_jax(array) for name, array in inputs.items()}, as_jax(truth), as_jax(weight)


def as_jax(array: Array) -> Any:
    """Make an array of JAX, which shares the memory where that is possible.

    What shares it is bound to the CPU: where there is another device, a step would be computed here, or refused.
    """
    if array.dtype == np.int64 and not jax.config.read("jax_enable_x64"):
        array = array.astype(np.int32)
    is_here = jax.default_backend() == "cpu" and jax.device_count() == 1
    return jnp.from_dlpack(array) if is_here and array.flags.writeable else jnp.asarray(array)
