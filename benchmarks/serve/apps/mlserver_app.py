"""A runtime for MLServer, which has an environment of its own: nothing here imports this project or its libraries."""

from __future__ import annotations

import base64

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serve.apps.session import open_session, run


class OnnxRuntime(MLModel):
    """Tensor ``flat`` (n, 27) as a list of numbers, or ``packed``: the bytes of float32 values in base64.

    MLServer's REST does not take the binary extension of the protocol; base64 is its way to send bytes.
    """

    async def load(self) -> bool:
        self.session = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        if tensor.name == "flat":
            scores = self._run(NumpyCodec.decode_input(tensor))
        else:
            parts = [np.frombuffer(base64.b64decode(text), np.float32) for text in tensor.data]
            scores = self._run(np.concatenate(parts).reshape(-1, 27)).reshape(len(parts), -1)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])

    def _run(self, x: np.ndarray) -> np.ndarray:
        return run(self.session, x.astype(np.float32, copy=False))
