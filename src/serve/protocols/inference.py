"""The Open Inference Protocol: tensors by the names of a graph's inputs (see :mod:`serve.codec.inference`)."""

from __future__ import annotations

from collections.abc import Generator

from serve.codec import inference
from serve.messages import Reply, Request
from serve.models.scoring import DecodedRequest, Outputs, Replies, group_of_tensors, in_slices
from serve.models.session import Model
from serve.parsing import finished
from serve.protocols.protocol import Protocol
from serve.settings import Settings


class OpenInference(Protocol):
    """Tensors go to the graph as they are; the option ``header_length`` says where binary ones begin."""

    def task(self, place: int, request: Request, model: Model, *, settings: Settings) -> DecodedRequest:
        """Decode tensors.

        Parameters
        ----------
        place : of its answer among those of its batch
        request : tensors, as the Open Inference Protocol has them
        model : that is asked
        settings : with the limits of a request
        """
        return finished(self._task(place, request, model, settings))

    def steps(self, request: Request, model: Model, *, settings: Settings) -> Replies:
        """Decode and run long tensors a piece at a time.

        Parameters
        ----------
        request : tensors, as the Open Inference Protocol has them
        model : that is asked
        settings : with the limits of a request
        """
        task = yield from self._task(0, request, model, settings)
        yield None
        yield from in_slices(task)

    def _task(
        self, place: int, request: Request, model: Model, settings: Settings
    ) -> Generator[None, None, DecodedRequest]:
        length = request.options.get("header_length")
        asked = yield from inference.decode_in_pieces(
            request.body, None if length is None else int(length), model.manifest, settings=settings
        )
        names = [o.name for o in model.manifest.outputs]

        def encode(outputs: Outputs, seconds: float) -> Reply:
            body, headers = inference.encode(
                asked, dict(zip(names, outputs, strict=True)), model=request.model, version=request.version
            )
            return Reply(status=200, body=body, headers=headers, num_events=asked.num_events, seconds=seconds)

        tensors = dict(asked.tensors)
        return DecodedRequest(
            place=place, model=model, deadline=request.deadline, group=group_of_tensors(tensors, model),
            content=tensors, encode=encode,
        )  # fmt: skip
