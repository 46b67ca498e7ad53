"""A run's recipe in PyTorch, written as its users write it: `nn.Module`, `torch.optim`, tensors of whole batches.

What the speedrun measures beside our loop. Only the settings that its rows use are known here; others are refused.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import time
from typing import Any

import numpy as np

from fmnist_zoo import inputs, layers, registry
from fmnist_zoo.errors import UsageError
from fmnist_zoo.spec import ModelSpec, Recipe

KNOWN = {"epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "schedule_epochs", "warmup",
         "label_smoothing", "ema", "shift", "flip", "mixup", "weights", "validation_size", "initial_weights"}
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
SIDE = 28
FIRST = "fmnist_zoo.convolutional"  # a module; of its models a network may begin


def check(spec: ModelSpec, recipe: Recipe) -> None:
    """`UsageError` for what is not written here."""
    kinds = {layer.kind for layer in spec.layers} - {layers.DENSE, layers.DROPOUT, layers.BATCH, layers.ACTIVATION,
                                                     layers.STANDARDIZED, layers.WHITENED, layers.ADD}
    changed = {field.name for field in dataclasses.fields(recipe) if getattr(recipe, field.name) != field.default}
    first = recipe.initial_weights
    unknown = [*sorted(kinds), *sorted(changed - KNOWN),
               *([f"initial_weights={first}"] if first and not first.startswith(f"{FIRST}:") else []),
               *(["l1 or l2"] if spec.l1 or spec.l2 else []),
               *([recipe.optimizer] if recipe.optimizer not in ("adam", "adamw") else []),
               *([spec.activation] if spec.activation not in ACTIVATIONS else [])]
    if unknown:
        raise UsageError(f"benchmarks/torch_recipe.py has no {', '.join(unknown)}")


def dense(fan_in: int, units: int) -> Any:
    """A linear layer that begins as Keras' does."""
    from torch import nn

    layer = nn.Linear(fan_in, units)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def build(spec: ModelSpec, images: np.ndarray) -> Any:
    """The network of a spec, from (batch, 784) in [0, 1] to logits (batch, 10); `images` are those of a fixed input."""
    import torch
    from torch import nn

    def make(layer: layers.Layer) -> Any:
        if layer.kind == layers.DENSE:
            return dense(layer.fan_in, layer.units)
        if layer.kind == layers.BATCH:
            return nn.BatchNorm1d(layer.units)
        if layer.kind == layers.DROPOUT:
            return nn.Dropout(layer.rate)
        return nn.Identity()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleDict({layer.name: make(layer) for layer in spec.layers})
            if spec.input != "none":
                kernel, bias = inputs.fit(spec.input, images)
                self.register_buffer("kernel", torch.from_numpy(kernel))
                self.register_buffer("offset", torch.from_numpy(bias))

        def forward(self, flow: Any) -> Any:
            found: dict[str, Any] = {}
            for layer in spec.layers:
                if layer.kind == layers.STANDARDIZED:
                    flow = flow * self.kernel + self.offset
                elif layer.kind == layers.WHITENED:
                    flow = flow @ self.kernel + self.offset
                elif layer.kind == layers.ADD:
                    flow = flow + found[layer.source]
                else:
                    flow = self.steps[layer.name](flow)
                if layer.activation:
                    flow = getattr(nn.functional, layer.activation)(flow)
                found[layer.name] = flow
            return flow

    return Network()


def augment(pixels: Any, recipe: Recipe, generator: Any) -> Any:
    """Shifts and flips each image of a batch (n, 784) uint8 by chance."""
    import torch

    count, shift = len(pixels), recipe.shift
    images = torch.nn.functional.pad(pixels.view(count, SIDE, SIDE), (shift,) * 4)
    rows, columns = (torch.randint(0, 2 * shift + 1, (count, 1), generator=generator) + torch.arange(SIDE)
                     for _ in range(2))
    if recipe.flip:
        flipped = torch.randint(0, 2, (count, 1), generator=generator).bool()
        columns = torch.where(flipped, columns.flip(1), columns)
    return images[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].view(count, -1)


def convolutions() -> Any:
    """The network of `fmnist_zoo.convolutional.strided`, (batch, 784) to logits; `stages` lie between activations."""
    import torch
    from torch import nn

    widths, kernels, strides = importlib.import_module(FIRST).strided.__defaults__
    stages, side, before = [], SIDE, 1
    for width, kernel, stride in zip(widths, kernels, strides):
        around = max((-(-side // stride) - 1) * stride + kernel - side, 0)  # "same": more of it after
        convolution = nn.Conv2d(before, width, kernel, stride, bias=False)
        nn.init.xavier_uniform_(convolution.weight)
        stages.append(nn.Sequential(nn.ZeroPad2d((around // 2, around - around // 2) * 2), convolution,
                                    nn.BatchNorm2d(width)))
        side, before = -(-side // stride), width
    head = dense(before * side * side, 10)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([*stages, nn.Sequential(nn.Flatten(), nn.Dropout(0.2), head)])

        def forward(self, flow: Any) -> Any:
            flow = flow.view(-1, 1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
            for stage in self.stages[:-1]:
                flow = nn.functional.gelu(stage(flow))
            return self.stages[-1](flow)

    return Network()


def unroll(source: Any, model: Any) -> None:
    """Gives the dense layers of `model` the weights with which they compute what the stages of `source` do."""
    import torch
    from torch import nn

    source.eval()
    shape: tuple[int, ...] = (1, SIDE, SIDE)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for stage, layer in zip(source.stages, linear, strict=True):
            units = stage(torch.eye(layer.in_features).view(-1, *shape))
            bias = stage(torch.zeros(1, *shape)).flatten(1)
            layer.weight.copy_((units.flatten(1) - bias).T)
            layer.bias.copy_(bias[0])
            shape = tuple(units.shape[1:])


def train(spec: ModelSpec, recipe: Recipe, fit: Any, validation: Any, *, seed: int, bfloat16: bool, compiled: bool
          ) -> tuple[float, float]:
    """Seconds of all updates, with what compiles in the first, and the validation accuracy.

    A network that is trained first counts. It is trained in float32, as in our loop.

    Args:
        fit, validation: splits of `load_data`.
        compiled: by `torch.compile`.
    """
    import torch

    check(spec, recipe)
    torch.manual_seed(seed)
    model, seconds = build(spec, fit.images), 0.0
    if recipe.initial_weights:
        module, _, name = recipe.initial_weights.partition(":")
        importlib.import_module(module)
        first = convolutions()
        seconds = _updates(first, registry.get_recipe(name), fit, seed, bfloat16=False, compiled=compiled)
        start = time.perf_counter()
        unroll(first, model)
        seconds += time.perf_counter() - start
    seconds += _updates(model, recipe, fit, seed, bfloat16=bfloat16, compiled=compiled)
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(validation.images).float() / 255).argmax(1).numpy()
    return seconds, float((found == validation.labels).mean())


def _updates(model: Any, recipe: Recipe, fit: Any, seed: int, *, bfloat16: bool, compiled: bool) -> float:
    """Trains `model`, and leaves it with its last weights, or their mean; the seconds that took."""
    import torch
    from torch import nn

    from trainers.engine import schedule

    generator = torch.Generator().manual_seed(seed)
    pixels, labels = torch.from_numpy(fit.images), torch.from_numpy(fit.labels).long()
    decayed = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    others = [one for one in model.parameters() if not any(one is kernel for kernel in decayed)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": recipe.weight_decay},
                                   {"params": others, "weight_decay": 0.0}], fused=True)
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    means = [one.detach().clone() for one in model.parameters()] if recipe.ema else []
    batch = int(recipe.batch_size)
    steps = math.ceil(len(labels) / batch)
    forward = torch.compile(model) if compiled else model
    shares = torch.distributions.Beta(recipe.mixup, recipe.mixup) if recipe.mixup else None

    def step(chosen: Any, rate: float, number: int) -> None:
        shown, targets = pixels.index_select(0, chosen), labels.index_select(0, chosen)
        if recipe.shift or recipe.flip:
            shown = augment(shown, recipe, generator)
        flow = shown.float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            if shares:
                share = shares.sample((len(chosen), 1))
                logits = forward(share * flow + (1 - share) * flow.roll(-1, 0)).float()
                both = (nn.functional.cross_entropy(logits, one, label_smoothing=recipe.label_smoothing,
                                                    reduction="none") for one in (targets, targets.roll(-1, 0)))
                mine, other = both
                loss = (share[:, 0] * mine + (1 - share[:, 0]) * other).mean()
            else:
                loss = loss_function(forward(flow).float(), targets)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if means:
            torch._foreach_lerp_(means, [one.detach() for one in model.parameters()],
                                 1 - min(recipe.ema, (1 + number) / (10 + number)))

    model.train()
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        rates = schedule.learning_rates(recipe, steps_an_epoch=steps, epoch=epoch)
        for place, chosen in enumerate(torch.randperm(len(labels), generator=generator).split(batch)):
            step(chosen, float(rates[place]), epoch * steps + place + 1)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        for one, mean in zip(model.parameters(), means):
            one.copy_(mean)
    return seconds
