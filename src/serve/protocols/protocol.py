"""What a protocol is: how a request becomes a task, and its scores an answer; whatever transport brought it."""

from __future__ import annotations

from pathlib import Path

from rootdata.registry import Registry
from serve.errors import UnsupportedType
from serve.messages import Request
from serve.models.scoring import DecodedRequest, Replies, in_slices
from serve.models.session import Model
from serve.settings import Settings

PROTOCOLS = Registry(
    "protocol",
    group="serve.protocols",
    built_in={
        "physics": "serve.protocols.physics:Physics",
        "v2": "serve.protocols.inference:OpenInference",
        "tfaas-json": "serve.protocols.tfaas:TFaaSJSON",
        "tfaas-proto": "serve.protocols.tfaas:Proto",
        "image": "serve.protocols.tfaas:Image",
    },
)


class Protocol:
    """How requests of one road are read and answered; it runs where the models are, and knows no transport."""

    def task(self, place: int, request: Request, model: Model, *, settings: Settings) -> DecodedRequest:
        """Decode a request.

        Parameters
        ----------
        place : of its answer among those of its batch
        request : of this protocol, with its body
        model : the version that is asked
        settings : with the limits of a request

        Raises
        ------
        ServeError
            Saying what is wrong with it.
        """
        raise NotImplementedError

    def steps(self, request: Request, model: Model, *, settings: Settings) -> Replies:
        """Decode and score a request with a long body, a few events at a time.

        Parameters
        ----------
        request : of this protocol, with its body
        model : the version that is asked
        settings : with the limits of a request

        Raises
        ------
        ServeError
            As :meth:`task`.
        """
        task = self.task(0, request, model, settings=settings)
        yield None
        yield from in_slices(task)

    def file_steps(self, request: Request, model: Model, target: Path, *, settings: Settings) -> Replies:  # noqa: ARG002
        """Score a file a few events at a time.

        Parameters
        ----------
        request : with its ``path``
        model : the version that is asked
        target : file for the answer
        settings : with the limits of an event

        Raises
        ------
        UnsupportedType
            Where requests of this protocol don't come as files.
        """
        raise UnsupportedType(f"body: requests of the kind {request.road!r} don't come as files")
