"""TFaaS: one event as keys and values, or an image (see :mod:`serve.codec.tfaas`, :mod:`serve.codec.image`)."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from rootdata.bundle.manifest import Manifest
from rootdata.table import Table
from serve.codec import image, media, tfaas
from serve.codec.schema import Schemas
from serve.errors import InvalidEvents
from serve.messages import Reply, Request
from serve.models.scoring import (
    DecodedRequest,
    Outputs,
    check_finite,
    check_takes_events,
    group_of_events,
    group_of_tensors,
    reply,
)
from serve.models.session import Model
from serve.protocols.protocol import Protocol
from serve.settings import Settings


class _Event(Protocol):
    """One event as keys and values."""

    content_type = media.JSON

    def task(self, place: int, request: Request, model: Model, *, settings: Settings) -> DecodedRequest:
        """Decode the event."""
        check_takes_events(model)
        table = self.table(request.body, model.schemas, settings=settings)

        def encode(outputs: Outputs, seconds: float) -> Reply:
            return reply(request, self.scores(model.manifest, outputs[0]), self.content_type, outputs, seconds)

        return DecodedRequest(
            place=place, model=model, deadline=request.deadline, group=group_of_events(table, model), content=table,
            encode=encode,
        )  # fmt: skip

    def table(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the event."""
        raise NotImplementedError

    def scores(self, manifest: Manifest, scores: npt.NDArray[Any]) -> bytes:
        """Write its scores."""
        raise NotImplementedError


class TFaaSJSON(_Event):
    """Of ``/predict/json``."""

    def table(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the event.

        Parameters
        ----------
        body : JSON with ``keys`` and ``values``
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        return tfaas.decode_json(body, schemas, settings=settings)

    def scores(self, manifest: Manifest, scores: npt.NDArray[Any]) -> bytes:  # noqa: ARG002
        """Write its scores as a list."""
        return tfaas.encode_json(scores)


class Proto(_Event):
    """Of ``/predict/proto``."""

    content_type = media.PROTO

    def table(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the event.

        Parameters
        ----------
        body : a serialised message ``Row`` of TFaaS
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        return tfaas.decode_proto(body, schemas, settings=settings)

    def scores(self, manifest: Manifest, scores: npt.NDArray[Any]) -> bytes:
        """Write its scores as a message."""
        return tfaas.encode_proto(manifest.columns, scores)


class Image(Protocol):
    """Of ``/predict/image``: a picture, for a model whose one input is one."""

    def task(self, place: int, request: Request, model: Model, *, settings: Settings) -> DecodedRequest:
        """Decode the picture."""
        tensors = image.decode(request.body, model.manifest, settings=settings)

        def encode(outputs: Outputs, seconds: float) -> Reply:
            if outputs[0].dtype.kind not in "biuf":
                raise InvalidEvents(
                    f"output {model.manifest.outputs[0].name!r} holds no numbers; POST to /v2/.../infer"
                )
            check_finite(outputs[0], first=0)
            return reply(request, tfaas.encode_json(outputs[0]), media.JSON, outputs, seconds)

        return DecodedRequest(
            place=place, model=model, deadline=request.deadline, group=group_of_tensors(tensors, model),
            content=tensors, encode=encode,
        )  # fmt: skip
