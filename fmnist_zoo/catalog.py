"""The models of the zoo, one line each.

`nL` counts the layers, softmax included. `D` marks dropout; the digits after it are the rates, from the first hidden
layer to the last. Where rates differ, wider layers have higher ones: 800 units 0.4, 600 0.3, 400 0.2, 200 0.1.
The `network_*` models are trained as in the low-level part of the report: full batch, 500 updates, the last weights.
`N` marks batch normalization; the number after it is the units of each hidden layer, and `local` says that a unit is at
first connected to those near its place in the image. These go beyond the report.
"""

from typing import Any

from fmnist_zoo import convolutional
from fmnist_zoo.custom import ModelSummary
from fmnist_zoo.registry import list_models, register
from fmnist_zoo.spec import FULL_BATCH, ModelSpec, Recipe

FULL = Recipe(epochs=500, batch_size=FULL_BATCH, weights="last")
NORMAL = "normal_0.05"
W3, W4, W5 = (400, 200), (600, 400, 200), (800, 600, 400, 200)

register("softmax", "softmax classifier: no hidden layer")
register("2L", "one hidden layer", hidden=(200,))
register("3L", "two hidden layers", hidden=W3)
register("4L", "three hidden layers", hidden=W4)
register("5L", "four hidden layers", hidden=W5)
register("4D_drop02", "4L, a fifth of each hidden layer dropped", hidden=W4, dropout=0.2)
register("4D_drop03", "4L, three tenths of each hidden layer dropped", hidden=W4, dropout=0.3)
register("4D_drop03_02_01", "4L, more dropout where there are more units", hidden=W4, dropout=(0.3, 0.2, 0.1))
register("5D_drop02", "5L, a fifth of each hidden layer dropped", hidden=W5, dropout=0.2)
register("5D_drop03", "5L, three tenths of each hidden layer dropped", hidden=W5, dropout=0.3)
register("5D_drop04_03_02_01", "5L, more dropout where there are more units", hidden=W5, dropout=(0.4, 0.3, 0.2, 0.1))
register("network_softmax", "softmax classifier, full batch", initializer=NORMAL, recipe=FULL)
register("network_A", "one hidden layer, full batch", hidden=(300,), initializer=NORMAL, recipe=FULL)
register("network_B", "two hidden layers, full batch", hidden=(300, 100), initializer=NORMAL, recipe=FULL)
register("network_A_l1", "network A with an L1 penalty", hidden=(300,), l1=0.001, initializer=NORMAL, recipe=FULL)
register("network_A_l2", "network A with an L2 penalty", hidden=(300,), l2=0.001, initializer=NORMAL, recipe=FULL)
register("network_B_l1", "network B with an L1 penalty", hidden=(300, 100), l1=0.001, initializer=NORMAL, recipe=FULL)
register("network_B_l2", "network B with an L2 penalty", hidden=(300, 100), l2=0.001, initializer=NORMAL, recipe=FULL)

# Beyond the report: docs/record.md says what each ingredient of a recipe is worth.
N512: dict[str, Any] = dict(hidden=(512, 512, 512), activation="gelu", normalization="batch")
ANNEALED: dict[str, Any] = dict(optimizer="adamw", learning_rate=0.004, weight_decay=0.05, schedule="cosine",
                                warmup=0.05, label_smoothing=0.05, weights="last")

register("4N_512", "beyond the report: normalized, rate annealed", **N512, dropout=0.1,
         recipe=Recipe(epochs=12, **ANNEALED))
register("4N_512_mixup", "4N_512 for twice as long, on mixed images", **N512, dropout=0.2,
         recipe=Recipe(epochs=24, mixup=0.2, **ANNEALED))

register("5N_local", "beyond the report: its first weights are near each unit's place in the image",
         hidden=(1176, 588, 384, 384), activation="gelu", normalization="batch", initializer="local", dropout=0.15,
         recipe=Recipe(**ANNEALED | dict(epochs=60, batch_size=256, learning_rate=0.001, weight_decay=0.2, shift=1,
                                         flip=True)))

UNROLLED: dict[str, Any] = dict(hidden=(2352, 1176, 768, 768), activation="gelu", dropout=0.1)
FROM_CONVOLUTIONS: dict[str, Any] = {**ANNEALED, "initial_weights": "conv_strided", "batch_size": 512, "shift": 1,
                                     "flip": True}
CONVOLUTIONAL: dict[str, Any] = {**ANNEALED, "batch_size": 256, "flip": True}

register("5L_unrolled", "beyond the report: a convolutional network as dense layers, trained on", **UNROLLED,
         recipe=Recipe(**FROM_CONVOLUTIONS | dict(epochs=16, learning_rate=0.0005, mixup=0.2)))
register("5L_distilled", "beyond the report: 5L_unrolled, taught by conv_teacher", **UNROLLED,
         recipe=Recipe(**FROM_CONVOLUTIONS | dict(epochs=36, learning_rate=0.001, label_smoothing=0.0,
                                                  teacher="conv_teacher", teacher_weight=0.9)))
register("conv_strided", "the start of 5L_unrolled: four convolutions with strides", build=convolutional.strided,
         summary=ModelSummary(input=(28, 28, 1), parameters=46558, fixed=264),
         recipe=Recipe(**CONVOLUTIONAL | dict(epochs=20, shift=2, mixup=0.2)))
register("conv_teacher", "the teacher of 5L_distilled: residual, six convolutions", build=convolutional.residual,
         summary=ModelSummary(input=(28, 28, 1), parameters=446410, fixed=1152),
         recipe=Recipe(**CONVOLUTIONAL | dict(epochs=24, learning_rate=0.003, weight_decay=0.02, warmup=0.1, ema=0.999,
                                              label_smoothing=0.0, shift=1, erase=4)))

NAMES = tuple(list_models())  # of the zoo's own models; a person may register more


def default_space(spec: ModelSpec) -> str:
    """What a sweep of a model searches by default: L1, L2, and a dropout rate, one for each layer if they differ.

    Of a model that a function builds, learning rate and weight decay: it has no other settings.
    """
    if spec.build:
        return "learning_rate=0.0003,0.001,0.003; weight_decay=0,0.0001,0.001,0.01"
    rates = "0,0.1,0.2,0.3,0.4,0.5"
    if len(set(spec.dropout)) > 1:
        dropout = [f"dropout.{layer}={rates}" for layer in range(1, len(spec.hidden) + 1)]
    else:
        dropout = [f"dropout={rates}"] if spec.hidden else []
    return "; ".join([*dropout, "l1=0,1e-6,1e-5,1e-4", "l2=0,1e-5,1e-4,1e-3"])
