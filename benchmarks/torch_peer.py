"""PyTorch on the CPU, as its tutorials teach it: `nn.Sequential`, `CrossEntropyLoss`, `torch.optim.Adam`.

All images are one float32 tensor in memory. Each epoch takes them in a new random order by `index_select`, which is
several times as fast as `pixels[chosen]`; a `DataLoader` would gather the same images one by one. `torch.compile` keeps
its code for the next process: first epochs are shorter from the second round on.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import EPSILON, LEARNING_RATE, Clock, Task, read_weights
from fmnist_zoo import get_spec
from fmnist_zoo.spec import ModelSpec


def build(spec: ModelSpec, weights: list[Any]) -> Any:
    """`nn.Sequential` of a spec, from (batch, 784) to logits (batch, 10), with kernels and biases `weights`."""
    import torch
    from torch import nn

    layers: list[Any] = []
    for index, (fan_in, fan_out) in enumerate(zip(spec.widths, spec.widths[1:])):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weights[2 * index].T))
            layer.bias.copy_(torch.from_numpy(weights[2 * index + 1]))
        layers.append(layer)
        if index < len(spec.hidden):
            layers.append(nn.ReLU())
            if spec.dropout and spec.dropout[index]:
                layers.append(nn.Dropout(spec.dropout[index]))
    return nn.Sequential(*layers)


def run(task: Task, clock: Clock, split: Any, *, fused: bool = False, compiled: bool = False) -> None:
    """Trains; `fused` is Adam in one kernel, `compiled` is `torch.compile` of the model."""
    import torch
    from torch import nn

    torch.manual_seed(task.seed)
    spec = get_spec(task.model)
    pixels = torch.from_numpy(split.images).float() / 255
    labels = torch.from_numpy(split.labels).long()
    images, batch = len(labels), task.batch_size(len(labels))
    model = build(spec, read_weights(task))
    kernels = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    clock.start()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=fused or None)
    forward = torch.compile(model) if compiled else model

    def step(inputs: Any, targets: Any) -> Any:
        loss = loss_function(forward(inputs), targets)
        if spec.l1:
            loss = loss + spec.l1 * sum(kernel.abs().sum() for kernel in kernels)
        if spec.l2:
            loss = loss + spec.l2 * sum(kernel.square().sum() for kernel in kernels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach() * len(targets)

    model.train()
    for _ in range(1 + task.epochs):
        if batch == images:
            total = step(pixels, labels)
        else:
            total = torch.zeros(())
            for chosen in torch.randperm(images).split(batch):
                total += step(pixels.index_select(0, chosen), labels.index_select(0, chosen))
        clock.epoch_done(total / images)
