"""Beside the stages: a call over tensors of fixed shapes as a CUDA graph.

A small network's step is a few dozen kernels of microseconds each, so that launching them costs
more than running them. A graph launches them as one. (benchmarks/gpu.py compares; a prototype on
an H100, 1024 streams: 0.2M adaptations a second one by one, 1.2M as a graph.)
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

WARMUPS = 3  # calls before the capture, in which cuBLAS and the allocator settle

Tensors: TypeAlias = tuple[Tensor, ...]


def capture(
    call: Callable[[Tensors], Tensors], given: Tensors, device: torch.device
) -> Callable[[Tensors], Tensors]:
    """`call`, which must not wait for the device, captured on copies of `given`.

    The captured call copies its arguments (from the device or the CPU) over these copies, replays,
    and returns copies of the results, so that the next call cannot change them.
    """
    with torch.cuda.device(device):
        static = tuple(tensor.to(device, copy=True) for tensor in given)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUPS):
                call(static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call(static)

    def replay(new: Tensors) -> Tensors:
        with torch.cuda.device(device):
            for slot, tensor in zip(static, new, strict=True):
                slot.copy_(tensor, non_blocking=True)
            graph.replay()
            return tuple(tensor.clone() for tensor in results)

    return replay
