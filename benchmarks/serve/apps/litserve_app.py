"""Stock LitServe with batching: ``python -m benchmarks.serve.apps.litserve_app GRAPH PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np

from benchmarks.serve.apps.session import open_session, run


class Scores(litserve.LitAPI):
    """A request holds ``{"features": (n, 27)}``; all requests of a batch have the same n."""

    def __init__(self, graph: str) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.01)
        self.graph = graph

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self.session = open_session(self.graph)

    # LitServe would make a query parameter of a type.
    def decode_request(self, request) -> np.ndarray:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return np.asarray(request["features"], np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        found = run(self.session, x.reshape(-1, x.shape[-1]))
        return found.reshape(x.shape[:2])

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"scores": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Scores(sys.argv[1]), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
