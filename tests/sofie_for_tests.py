"""SOFIE, which turns an ONNX graph into C++ as ROOT users do: made, compiled and run on arrays."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

BLAS = """
extern "C" void sgemm_(const char* ta, const char* tb, const int* m, const int* n, const int* k, const float* alpha,
                       const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c,
                       const int* ldc) {
  for (int j = 0; j < *n; ++j)
    for (int i = 0; i < *m; ++i) {
      double sum = 0;
      for (int l = 0; l < *k; ++l)
        sum += double(*ta == 'n' || *ta == 'N' ? a[i + l * *lda] : a[l + i * *lda]) *
               (*tb == 'n' || *tb == 'N' ? b[l + j * *ldb] : b[j + l * *ldb]);
      float& out = c[i + j * *ldc];
      out = float(*alpha * sum) + (*beta == 0 ? 0 : *beta * out);
    }
}
extern "C" void sgemv_(const char* t, const int* m, const int* n, const float* alpha, const float* a, const int* lda,
                       const float* x, const int* incx, const float* beta, float* y, const int* incy) {
  bool plain = *t == 'n' || *t == 'N';
  for (int i = 0; i < (plain ? *m : *n); ++i) {
    double sum = 0;
    for (int l = 0; l < (plain ? *n : *m); ++l)
      sum += double(plain ? a[i + l * *lda] : a[l + i * *lda]) * x[l * *incx];
    float& out = y[i * *incy];
    out = float(*alpha * sum) + (*beta == 0 ? 0 : *beta * out);
  }
}
"""
"""The two routines of BLAS that the code calls, written out, so that no library is needed."""

MAIN = """
#include "model.hxx"
#include <fstream>
{blas}
int main(int argc, char** argv) {{
  std::ifstream in(argv[1], std::ios::binary);
  std::ofstream out(argv[2], std::ios::binary);
  auto number = [&] {{ std::int64_t n = 0; in.read(reinterpret_cast<char*>(&n), 8); return std::size_t(n); }};
  auto floats = [&](std::size_t n) {{
    std::vector<float> made(n);
    in.read(reinterpret_cast<char*>(made.data()), std::streamsize(4 * n));
    return made;
  }};
  for (std::size_t left = number(); left; --left) {{
    {read}
    SOFIE_model::Session session({construct});
    std::vector<float> scores = session.infer({call});
    out.write(reinterpret_cast<char*>(scores.data()), std::streamsize(4 * scores.size()));
  }}
}}
"""


class Compiled:
    """A graph that SOFIE turned into a program.

    Parameters
    ----------
    model : path of a graph with float32 inputs and one float32 output (events, columns)
    folder : where code, weights and program are put
    """

    def __init__(self, model: Path, folder: Path) -> None:
        sofie = pytest.importorskip("sofie", reason="needs `pip install sofie==0.1.0`")
        compiler = shutil.which("g++") or shutil.which("c++")
        if compiler is None:
            pytest.skip("needs a C++ compiler")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        copied = shutil.copy(model, folder / "model.onnx")
        made = sofie.onnx.parse(str(copied))
        made.generate()
        made.output_generated(str(folder / "model.hxx"))
        code = (folder / "model.hxx").read_text()
        construct = re.search(r"\bSession\(std::string filename[^{]*\{", code)
        infer = re.search(r"\binfer\((.*)\)\{", code)
        assert construct is not None
        assert infer is not None
        self._sizes = re.findall(r"size_t (\w+)", construct[0])
        arguments = re.findall(r"(size_t|float const\*) (\w+)", infer[1])
        self._inputs = [name.removeprefix("tensor_") for kind, name in arguments if kind != "size_t"]
        read = [f"auto {name} = number();" for name in self._sizes]
        read += [f"auto tensor_{name} = floats(number());" for name in self._inputs]
        main = MAIN.format(
            blas=BLAS,
            read="\n    ".join(read),
            construct=", ".join(['"model.dat"', *self._sizes]),
            call=", ".join(name if kind == "size_t" else f"{name}.data()" for kind, name in arguments),
        )
        (folder / "main.cxx").write_text(main)
        command = [compiler, "-std=c++17", "-O1", "-w", "main.cxx", "-o", "program"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]

    def __call__(self, *batches: Mapping[str, npt.NDArray[Any]], axes: Mapping[str, tuple[int | str, ...]]) -> Any:
        """Score batches of events, each in a session of its own.

        Parameters
        ----------
        batches : input name to its array
        axes : input name to its axes, as a manifest declares them

        Returns
        -------
        (events of all batches, columns) float32, flat
        """
        parts = [np.int64(len(batches)).tobytes()]
        for batch in batches:
            sizes = {a: n for name, v in batch.items() for a, n in zip(axes[name], v.shape, strict=True)}
            parts += [np.int64(sizes[name]).tobytes() for name in self._sizes]
            for name in self._inputs:
                assert batch[name].dtype == np.float32, f"{name} is {batch[name].dtype}"
                parts += [np.int64(batch[name].size).tobytes(), np.ascontiguousarray(batch[name]).tobytes()]
        (self._folder / "in").write_bytes(b"".join(parts))
        done = subprocess.run(["./program", "in", "out"], cwd=self._folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        return np.frombuffer((self._folder / "out").read_bytes(), np.float32)
