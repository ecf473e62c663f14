"""One network in every framework, fed by ``rootdata.frameworks``: ``python -m benchmarks.frameworks``.

A perceptron of 128 and 64 nodes with the mask beside the inputs, Adam at 1e-3, the same events in the same batches of
512: the AUC of test events. Weights begin as those of torch. Every training is a process of its
own; a framework that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import in_process, timed

SIZES, RATE = (128, 64), 1e-3
BACKENDS = ("torch", "jax", "tensorflow")
NEEDS = {"torch": "torch", "JAX": "optax", "fastai": "fastai"} | {f"Keras on {name}": "keras" for name in BACKENDS}


def with_torch(data: Any, epochs: int, seed: int) -> Callable[[Any], Any]:
    """Train in a plain loop."""
    import torch

    torch.manual_seed(seed)
    network = torch_network(2 * data.shapes["x"][0])
    optimizer, events = torch.optim.Adam(network.parameters(), lr=RATE), data.dataset("train")
    for epoch in range(epochs):
        for batch in events.batches(epoch):
            logits = network(batch["x"], batch["mask"])
            optimizer.zero_grad()
            torch_loss(logits, batch["label"], batch["weight"] / data.mean_weight).backward()
            optimizer.step()
    return lambda inputs: torch_scores(network, inputs)


def with_fastai(data: Any, epochs: int, seed: int) -> Callable[[Any], Any]:
    """Train by a ``Learner``."""
    import torch
    from fastai.callback.progress import ProgressCallback
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    from rootdata.frameworks.fastai import dataloaders

    def adam(parameters: Any, **_: Any) -> Any:
        return OptimWrapper(parameters, torch.optim.Adam)

    torch.manual_seed(seed)
    network = torch_network(2 * data.shapes["x"][0])
    learner = Learner(dataloaders(data), network, loss_func=torch_loss, opt_func=adam, lr=RATE)
    learner.remove_cbs([callback for callback in learner.cbs if isinstance(callback, ProgressCallback)])
    learner.logger = lambda *_: None
    learner.fit(epochs)
    return lambda inputs: torch_scores(network.cpu().eval(), inputs)


def with_keras(data: Any, epochs: int, seed: int) -> Callable[[Any], Any]:
    """Train by ``fit``, on the backend that the environment names."""
    import keras

    from rootdata.frameworks.keras import KerasBatches

    keras.utils.set_random_seed(seed)
    x = keras.Input(data.shapes["x"], name="x")
    mask = keras.Input(data.shapes["mask"], name="mask", dtype="bool")
    layer = keras.layers.Concatenate()([x, keras.ops.cast(mask, "float32")])
    for nodes in SIZES:
        start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")  # as torch begins
        layer = keras.layers.Dense(nodes, activation="relu", kernel_initializer=start)(layer)
    model = keras.Model({"x": x, "mask": mask}, keras.layers.Dense(1, activation="sigmoid")(layer))
    model.compile(keras.optimizers.Adam(RATE), "binary_crossentropy")
    model.fit(KerasBatches(data), epochs=epochs, shuffle=False, verbose=0)
    return model.predict_on_batch


def with_jax(data: Any, epochs: int, seed: int) -> Callable[[Any], Any]:
    """Train by a compiled step of JAX and optax."""
    import jax
    import jax.numpy as jnp
    import optax

    from rootdata.frameworks.jax import JaxBatches

    widths = [2 * data.shapes["x"][0], *SIZES, 1]
    keys = jax.random.split(jax.random.key(seed), len(widths))
    start = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # as torch begins
    layers = [(start(k, (n, m)), jnp.zeros(m)) for k, n, m in zip(keys, widths, widths[1:], strict=False)]

    def logits(layers: Any, inputs: Any) -> Any:
        x = jnp.concatenate([inputs["x"], inputs["mask"].astype(jnp.float32)], axis=1)
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return (x @ layers[-1][0] + layers[-1][1])[:, 0]

    def loss(layers: Any, inputs: Any, label: Any, weight: Any) -> Any:
        return (weight * optax.sigmoid_binary_cross_entropy(logits(layers, inputs), label)).mean()

    def step(layers: Any, state: Any, inputs: Any, label: Any, weight: Any) -> Any:
        changes, state = adam.update(jax.grad(loss)(layers, inputs, label, weight), state)
        return optax.apply_updates(layers, changes), state

    adam, compiled = optax.adam(RATE), jax.jit(step)
    state, batches = adam.init(layers), JaxBatches(data)
    for _ in range(epochs):
        for batch in batches:
            layers, state = compiled(layers, state, *batch)
    return lambda inputs: logits(layers, {name: jnp.asarray(values) for name, values in inputs.items()})


def torch_network(width: int) -> Any:
    """Make the network of torch: called with inputs and mask, one logit an event."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [width, *SIZES]
            hidden = [(torch.nn.Linear(n, m), torch.nn.ReLU()) for n, m in zip(widths, SIZES, strict=False)]
            self.layers = torch.nn.Sequential(*(one for pair in hidden for one in pair), torch.nn.Linear(SIZES[-1], 1))

        def forward(self, x: Any, mask: Any) -> Any:
            return self.layers(torch.cat([x, mask.float()], dim=1))[:, 0]

    return Net()


def torch_loss(logits: Any, label: Any, weight: Any) -> Any:
    """Weigh the cross-entropy of events."""
    import torch

    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float(), reduction="none")
    return (weight * each).mean()


def torch_scores(network: Any, inputs: Any) -> Any:
    """Give the logits of events."""
    import torch

    with torch.no_grad():
        return network(*map(torch.from_numpy, inputs.values())).numpy()


WAYS = {"torch": with_torch, "JAX": with_jax, "fastai": with_fastai, "Keras": with_keras}


def measure(name: str, folder: Path, events: int, epochs: int, seed: int) -> dict[str, float]:
    """Train once, and score the test events."""
    import torch

    from benchmarks.paper.trainings import compose
    from rootdata.frameworks.batches import Batches
    from rootdata.loading.datamodule import RootDataModule
    from rootdata.training.metrics import auc

    torch.set_num_threads(1)
    data = RootDataModule(**compose(folder, events) | {"scale": "standard", "batch_size": 512}, seed=seed)
    made: list[Any] = []

    def train() -> int:
        made.append(WAYS[name.split(maxsplit=1)[0]](data, epochs, seed))
        return epochs * data.dataset("train").num_events

    spent = timed(train)
    found = [(np.asarray(made[0](inputs)).reshape(-1), label) for inputs, label, _ in Batches(data, "test")]
    scores, labels = map(np.concatenate, zip(*found, strict=True))
    return {"auc": float(auc(scores.astype(float), labels)), **spent}


def main() -> None:
    """Train all, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frameworks", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the ttH samples are, or are made")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="of torch, whose spread is what others are held against")
    parser.add_argument("--others", type=int, default=1, help="seeds of every other framework")
    parser.add_argument("--one", nargs=2, metavar=("FRAMEWORK", "SEED"), help="train once; its line is JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], given.data, given.events, given.epochs, int(given.one[1]))))
        return
    print(
        f"| {given.events:,} events, {given.epochs} epochs | test AUC, each seed | CPU-s |\n|---|--:|--:|", flush=True
    )
    rest = [f"--data={given.data.absolute()}", f"--events={given.events}", f"--epochs={given.epochs}"]
    for name, library in NEEDS.items():
        words = name.split()
        if any(importlib.util.find_spec(one) is None for one in (library, words[-1].lower())):
            print(f"| {name} | not installed | |", flush=True)
            continue
        os.environ["KERAS_BACKEND"] = words[-1].lower() if library == "keras" else "torch"
        seeds = range(1, 1 + (given.seeds if name == "torch" else given.others))
        found = [in_process("benchmarks.frameworks", ["--one", name, str(seed), *rest]) for seed in seeds]
        areas = ", ".join(f"{one['auc']:.4f}" for one in found)
        print(f"| {name} | {areas} | {np.mean([one['cpu'] for one in found]):.1f} |", flush=True)


if __name__ == "__main__":
    main()
