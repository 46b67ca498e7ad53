"""Functions of hyper-parameters that build models, in the forms that keras-tuner's guides have."""

from fmnist_zoo.backend import keras

layers = keras.layers


def build_model(hp):
    """no Input, layers in a loop, a last softmax, one-hot labels"""
    model = keras.Sequential()
    model.add(layers.Flatten())
    for index in range(hp.Int("num_layers", 1, 3)):
        model.add(layers.Dense(units=hp.Int(f"units_{index}", min_value=8, max_value=32, step=8),
                               activation=hp.Choice("activation", ["relu", "tanh"])))
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    model.add(layers.Dense(10, activation="softmax"))
    rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log")
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=rate), loss="categorical_crossentropy",
                  metrics=["accuracy"])
    return model


def conditional(hp):
    """layers in conditional scopes"""
    model = keras.Sequential([keras.Input((28, 28, 1))])
    kind = hp.Choice("model_type", ["mlp", "cnn"])
    with hp.conditional_scope("model_type", ["mlp"]):
        if kind == "mlp":
            model.add(layers.Flatten())
            model.add(layers.Dense(hp.Choice("units", [4, 8]), activation="relu"))
    with hp.conditional_scope("model_type", ["cnn"]):
        if kind == "cnn":
            model.add(layers.Conv2D(hp.Choice("filters", [2, 3]), 5, strides=3, activation="relu"))
            model.add(layers.Flatten())
    model.add(layers.Dense(10))
    model.compile(hp.Choice("optimizer", ["adam", "sgd"]),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def reserved(hp):
    """names of settings and of columns of a sweep's table"""
    dense = layers.Dense(hp.Choice("objective", [4, 8]), hp.Choice("status", ["relu", "tanh"]))
    model = keras.Sequential([keras.Input((784,)), dense, layers.Dropout(hp.Float("dropout", 0.1, 0.5)),
                              layers.Dense(hp.Int("seed", 4, 8), "relu"), layers.Dense(10)])
    model.compile(keras.optimizers.SGD(hp.Float("lr", 0.01, 0.1)), "sparse_categorical_crossentropy")
    return model


def cnn(filters=4, rate=0.3, kind="relu", lr=0.002):
    """a plain function"""
    model = keras.Sequential([layers.Conv2D(filters, 5, strides=3, activation=kind), layers.Flatten(),
                              layers.Dropout(rate), layers.Dense(10)])
    model.compile(keras.optimizers.RMSprop(lr), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def failing(hp):
    """raises for one of its values"""
    units = hp.Choice("units", [4, 8])
    if units == 8:
        raise ValueError("eight is\ntoo many")
    return keras.Sequential([keras.Input((784,)), layers.Dense(units), layers.Dense(10)])


def dense(units):
    return keras.Sequential([keras.Input((784,)), layers.Dense(units), layers.Dense(10)])


def nested(hp):
    """scopes within a scope, found one after the other"""
    units = 4
    if hp.Choice("kind", ["x", "y", "z"]) == "y":
        with hp.conditional_scope("kind", ["y"]):
            if hp.Boolean("wide"):
                with hp.conditional_scope("wide", [True]):
                    units = hp.Int("units", 5, 7)
    return dense(units)


def same_name(hp):
    """a name in two scopes, with other values"""
    kind = hp.Choice("kind", ["small", "large"])
    with hp.conditional_scope("kind", ["small"]):
        units = hp.Int("units", 2, 4)
    with hp.conditional_scope("kind", ["large"]):
        wide = hp.Int("units", 8, 10)
    return dense(units if kind == "small" else wide)


def shrinking(hp):
    """asks for less with other values than the defaults, without a scope"""
    return dense(sum(hp.Choice(f"units_{index}", [4, 5]) for index in range(hp.Int("count", 1, 2, default=2))))


def fixed(hp):
    """nothing to search"""
    return dense(hp.Fixed("units", 4))


def switched(units=4, biased=False):
    """a plain function with a switch"""
    return keras.Sequential([keras.Input((784,)), layers.Dense(units, use_bias=biased), layers.Dense(10)])


def nothing(hp):
    """no return"""
    build_model(hp)
