"""Arrays of JAX: on the device that it computes on, of shared memory where there is no other."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rootdata.arena import ALIGNED, shared
from rootdata.errors import LibraryError

try:
    from rootdata.frameworks.jax import as_jax
except LibraryError:
    pytest.skip("jax: this framework is not installed", allow_module_level=True)

ELSEWHERE = """
import jax
import numpy as np
from rootdata.frameworks.jax import as_jax

with jax.default_device(jax.devices()[1]):
    assert as_jax(np.ones(3, np.float32)).devices() == {jax.devices()[1]}
step = jax.jit(lambda weights, batch: weights @ batch)
print(step(jax.device_put(np.ones(3, np.float32), jax.devices()[1]), as_jax(np.ones(3, np.float32))).devices())
"""


def test_large_arrays_of_the_stream_are_not_copied() -> None:
    array = shared().empty((512, 100), np.float32)
    array[:] = 1
    assert array.ctypes.data % ALIGNED == 0
    assert as_jax(array).unsafe_buffer_pointer() == array.ctypes.data


def test_another_device_gets_its_batches() -> None:
    two = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], env=two, capture_output=True, text=True, check=False)
    assert done.stdout == "{CpuDevice(id=1)}\n", done.stderr
