"""Adaptations a second of the inner loop against the number of streams: loop, batched, graph.

    make bench-gpu    or: python -m benchmarks.gpu [--slots 1 16 256 1024] [--events 16]

An adaptation is one stream's k = 3 steps on 16 new and 16 replayed events; the network is
32-64-64-10 with rank 2. `loop` adapts one stream after the other with autograd, `eager` all slots
in one call, `graph` the same call as a captured CUDA graph, inputs already on the device in both;
`graph + copy` copies them from pinned memory first, as a worker does. The best of several rounds
is printed: on a CPU for a second of one core, which other work on the machine blurs least, and for
a second of wall clock on all cores; with the largest difference of the new weights from `loop`'s,
since a fast wrong answer is no answer. Without a CUDA device its lines are left out, and one line
says so.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.jobs import Job, Row, Scale, Skip
from streamlearn.core.adapt import Batch, InnerLoop
from streamlearn.core.adapt_settings import AdaptSettings, Objective
from streamlearn.core.encoder import logits, slow_tensors, stack
from streamlearn.core.gradients import goal, loss_at
from streamlearn.core.network_spec import NetworkSpec, new_weights, slow_weights

SPEC = NetworkSpec(inputs=32, hidden=(64, 64), rank=2, classes=16)
CLASSES = 10
SETTINGS = AdaptSettings(steps=3, rate=0.1)
SLOTS, EVENTS, SECONDS = (1, 16, 256, 1024), 16, 1.5
LOOP_STREAMS = 64  # the loop's speed does not depend on how many streams wait for it


def inner_loop(
    slots: int, events: int, device: str, *, graph: bool = False, threads: int = 1
) -> InnerLoop:
    """The inner loop with one draw of replay."""
    return InnerLoop(
        SPEC,
        SETTINGS,
        slow_weights(SPEC),
        slots=slots,
        events=events,
        draws=1,
        device=device,
        graph=graph,
        threads=threads,
    )


def some_batch(loop: InnerLoop) -> Batch:
    """Random events, full slots: what is computed does not depend on the values."""
    draw = torch.Generator().manual_seed(0)
    batch = loop.empty()
    for part in (batch.x, batch.replay_x):
        part.normal_(generator=draw)
    for part in (batch.y, batch.replay_y):
        part.random_(0, CLASSES, generator=draw)
    batch.replay_logits[..., :CLASSES].normal_(generator=draw)
    batch.mask.fill_(True)
    batch.replay_mask.fill_(True)
    batch.known[:, :CLASSES] = True
    batch.rate.fill_(SETTINGS.rate)
    return batch


def adapt_one(slow: tuple[Tensor, ...], phi: Tensor, batch: Batch, objective: Objective) -> Tensor:
    """One stream, phi (1, P), plainly: forward, autograd, clip, step."""
    aim = goal(
        objective,
        x=batch.x,
        y=batch.y,
        mask=batch.mask,
        replay_x=batch.replay_x[0],
        replay_y=batch.replay_y[0],
        replay_mask=batch.replay_mask[0],
        replay_logits=batch.replay_logits[0],
        known=batch.known,
    )
    for _ in range(SETTINGS.steps):
        leaf = phi.detach().requires_grad_()
        loss = loss_at(aim, logits(SPEC, slow, leaf, aim.x)).sum()
        (grad,) = torch.autograd.grad(loss, leaf)
        scale = SETTINGS.clip / grad.norm().clamp_min(SETTINGS.clip)
        phi = phi - batch.rate.unsqueeze(1) * scale * grad
    return phi.detach()


def per_second(
    call: Callable[[], object], streams: int, seconds: float, clock: Callable[[], float]
) -> float:
    """Streams adapted a second of `clock`, the best of several rounds."""
    best, until = math.inf, time.perf_counter() + seconds
    call()
    while time.perf_counter() < until or best == math.inf:
        start = clock()
        call()
        best = min(best, clock() - start)
    return streams / best


def device_clock() -> float:
    """Wall clock once the device has nothing left to do."""
    torch.cuda.synchronize()
    return time.perf_counter()


def on_device(batch: Batch, device: str) -> Batch:
    """The batch moved to a device."""
    return Batch(**{f.name: getattr(batch, f.name).to(device) for f in fields(Batch)})


def pinned(batch: Batch) -> Batch:
    """The batch in pinned memory, from where copies to the device are fastest."""
    return Batch(**{f.name: getattr(batch, f.name).pin_memory() for f in fields(Batch)})


def measure(
    slots: int, events: int, seconds: float, device: str, cores: int
) -> Iterator[tuple[str, float, float]]:
    """How, adaptations a second, difference from the loop: of one number of streams."""
    slow = slow_weights(SPEC)
    batch = some_batch(inner_loop(slots, events, "cpu"))
    phi = stack(SPEC, [new_weights(SPEC, slot) for slot in range(slots)])
    few = min(slots, LOOP_STREAMS)
    slow_here = slow_tensors(slow, torch.device(device))
    singles = [on_device(batch.slots(slot, slot + 1), device) for slot in range(few)]
    rows = [phi[slot : slot + 1].to(device) for slot in range(few)]

    def loop_all() -> Tensor:
        each = zip(rows, singles, strict=True)
        return torch.cat([adapt_one(slow_here, r, b, SETTINGS.objective) for r, b in each])

    core = time.process_time if device == "cpu" else device_clock
    truth = loop_all().cpu()
    yield "loop", per_second(loop_all, few, seconds, core), 0.0
    here, phi_here = on_device(batch, device), phi.to(device)
    ways = [("eager", inner_loop(slots, events, device), here, phi_here, core)]
    if device == "cpu":
        every = inner_loop(slots, events, device, threads=cores)
        ways.append((f"eager, {cores} cores", every, here, phi_here, time.perf_counter))
    else:
        graph = inner_loop(slots, events, device, graph=True)
        ways.append(("graph", graph, here, phi_here, core))
        ways.append(("graph + copy", graph, pinned(batch), phi.pin_memory(), core))
    for name, loop, given, weights, clock in ways:
        off = (loop.adapt(weights, given).phi[:few].cpu() - truth).abs().max()
        call = partial(loop.adapt, weights, given)
        yield name, per_second(call, slots, seconds, clock), float(off)


def devices() -> list[str]:
    """Those that are here."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def jobs(scale: Scale, _: Path | None) -> tuple[list[Job], list[Skip]]:
    """A device and a number of streams each, for `benchmarks.learning`."""
    skipped = [] if len(devices()) > 1 else [Skip("inner loop on CUDA", "there is no device here")]
    made = [
        Job("gpu", f"{slots} streams", device, (0,), scale, None)
        for device in devices()
        for slots in (SLOTS if scale.wide else SLOTS[-1:])
    ]
    return made, skipped


def run(job: Job) -> list[Row]:
    """All ways of one number of streams."""
    slots, cores = int(job.setting.split()[0]), os.cpu_count() or 1
    lines = list(measure(slots, EVENTS, SECONDS, job.who, cores))
    figures: dict[str, float | None] = {name: speed for name, speed, _ in lines}
    figures["off"] = max(off for _, _, off in lines)
    return [Row(job.part, job.setting, job.who, 0, job.scale.name, figures)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, nargs="+", default=list(SLOTS))
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}")
    print(f"{'where':6s}{'how':16s}{'streams':>8s}{'adapt./s':>14s}{'off':>12s}")
    for device in devices():
        for slots in options.slots:
            for how, speed, off in measure(slots, options.events, options.seconds, device, cores):
                print(f"{device:6s}{how:16s}{slots:8d}{speed:14,.0f}{off:12.1e}", flush=True)
    if not torch.cuda.is_available():
        print("cuda: no device here; its lines are left out and no graph was captured")
    else:
        print(f"cuda: {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main()
