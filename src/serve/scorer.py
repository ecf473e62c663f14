"""A served model as ``rootdata predict`` asks for scores: by its address, ``http://host:8000/models/ttH``."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from rootdata.bundle.manifest import Manifest
from rootdata.errors import BundleError, nearest
from rootdata.table import Table
from serve.client.errors import ClientError
from serve.client.waiting import Client

KEY = "ROOTDATA_KEY"
_ADDRESS = re.compile(
    r"(?P<server>https?://.+?)/models/(?P<name>[^/]+)(/versions/(?P<version>\d+)|/aliases/(?P<alias>[^/]+))?/?"
)


class ServedModel:
    """Lets a server score events, all by the version that was the one meant when it was opened.

    Parameters
    ----------
    address : of the model, of one of its versions, or of an alias

    Raises
    ------
    BundleError
        For an address that leads to no model, and a server that does not answer.
    """

    def __init__(self, address: str) -> None:
        parts = _ADDRESS.fullmatch(address)
        if parts is None:
            raise BundleError(
                f"bundle: got {address!r}; expected the address of a model: http://host:8000/models/NAME, with "
                "/versions/3 or /aliases/production behind it where it is not the latest version"
            )
        self._model = unquote(parts["name"])
        with contextlib.ExitStack() as held, _told():
            self._client = Client(parts["server"], key=os.environ.get(KEY) or None, timeout=120.0)
            held.callback(self._client.close)  # unless all goes well
            self._version = int(parts["version"]) if parts["version"] else self._meant(parts["alias"])
            plain = self._client.card(self._model, self._version)
            self.manifest = Manifest.from_dict(plain["manifest"])
            held.pop_all()
        self.name = f"{parts['server']}/models/{parts['name']}/versions/{self._version}"

    def _meant(self, alias: str | None) -> int:
        """Return the version that an alias points at, the latest without one."""
        card = self._client.card(self._model)
        if alias is None:
            return int(card["latest"])
        aliases = card["aliases"]
        if unquote(alias) not in aliases:
            raise BundleError(f"bundle: model {self._model!r} has no alias {alias!r}; {nearest(alias, aliases)}")
        return int(aliases[unquote(alias)])

    def scores(self, table: Table, *, where: str) -> npt.NDArray[np.float32]:
        """Return the scores of some events, (n, columns) float32.

        Parameters
        ----------
        table : the branches of the manifest
        where : what the events come from, for errors
        """
        with _told(where):
            return self._client.predict(self._model, table, version=self._version).scores

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class ServedModels:
    """Opens served models by their addresses."""

    def __call__(self, address: str) -> ServedModel:
        """Open one."""
        return ServedModel(address)


@contextlib.contextmanager
def _told(where: str = "") -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise BundleError(f"{error}{where and f' (events of {where})'}") from error
