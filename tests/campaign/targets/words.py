"""Words of a person: flags of every command, spaces of sweeps, names of models, runs and sweeps."""

from __future__ import annotations

import json
import os
import pathlib
import random

from fmnist_zoo import registry, settings, views
from fmnist_zoo.settings import Choice, Each, Switch
from tests.campaign import mutators
from tests.campaign.inputs import Target
from tests.campaign.targets import command, refused, wrong
from trainers import cli, evaluate, export, predict, report, results, runs, sweep, train
from trainers.config import DEPENDENT, SETTINGS, RunConfig, overlay, resolve
from trainers.reproduction import experiments
from trainers.running import folder as folders
from trainers.tuning import space
from trainers.tuning.plan import TUNERS, Plan
from trainers.tuning.start import sweep_folder

MODELS = ("softmax", "2L", "4L", "4D_drop03", "5D_drop04_03_02_01", "network_A", "network_B_l1", "4N_512",
          "2L,hidden=20", "4L,dropout=0.3_0.2_0.1,l2=1e-05")
SPACES = (
    "dropout=0,0.2,0.4; l2=0,1e-5,1e-4", "dropout=0..0.5; l2=log(1e-6..1e-3)",
    "hidden=300_100,20_20; activation=relu,gelu",
    "dropout.1=0,0.1; dropout.2=0.1..0.5", "epochs=1..9; batch_size=32,full; optimizer=adam,sgd", "residual=true,false",
    "learning_rate=log(1e-4..1e-2); schedule=constant,cosine; warmup=0,0.1", "teacher=softmax; teacher_weight=0.1,0.9",
    "expansion=0..4; hidden=20_20,30_30_30", "shift=0,1,2; flip=true,false; mixup=0.0,0.2; ema=0,0.9", "seed=0,1", "")


def given(rng: random.Random, name: str) -> str:
    """A value for a setting: one that it takes, or another."""
    known = SETTINGS[name]
    if rng.random() < 0.3:
        return mutators.word(rng, known.kind.write(known.default))
    if isinstance(known.kind, Choice):
        return rng.choice(known.kind.values)
    if isinstance(known.kind, Switch):
        return rng.choice(("true", "false"))
    if isinstance(known.kind, Each):
        return rng.choice((",", "_")).join(rng.choice(("0.1", "20", "0", "300")) for _ in range(rng.randrange(1, 4)))
    return rng.choice(("0", "1", "2", "0.1", "0.5", "1e-5", "full", known.kind.write(known.default),
                       rng.choice(mutators.TEXTS), str(rng.choice(mutators.BOUNDS)), repr(rng.choice(mutators.FLOATS))))


def flags(rng: random.Random) -> list[str]:
    """Flags of settings."""
    return [f"--{name}={given(rng, name)}" for name in rng.sample(list(SETTINGS), rng.choice((0, 1, 1, 2, 3)))]


def packed(words: list[str]) -> bytes:
    return json.dumps(words).encode()


class Names(Target):
    """Names of models: one that is read has a canonical spelling, which is read as the same spec."""

    name, batch = "names", 5000

    def make(self, rng: random.Random) -> bytes:
        name = rng.choice(MODELS)
        for _ in range(rng.randrange(3)):
            name += f",{rng.choice(list(settings.settings_of(registry.ModelSpec)))}=" + given(
                rng, rng.choice(("hidden", "dropout", "l2", "activation", "residual", "expansion", "input")))
        return (mutators.word(rng, name) if rng.random() < 0.5 else name).encode("utf-8", "surrogatepass")

    def check(self, content: bytes) -> None:
        name = content.decode("utf-8", "surrogatepass")
        found, said = refused(lambda: registry.get_spec(name))
        if said:
            return
        if registry.get_spec(found.name) != found or registry.derive(found) != found:
            wrong(f"{found.name} is not read back as the same")
        if os.sep in found.folder or len(os.fsencode(found.folder)) > 255 or found.folder in (".", "..", "sweeps"):
            wrong(f"{found.folder!r} names no folder")
        registry.get_recipe(name)
        found.parameters, found.training_flops


class Folders(Target):
    """Names of runs, sweeps and log folders: the folder that one names is below the log folder."""

    name, batch = "folders", 4000

    def prepare(self, folder: pathlib.Path) -> None:
        self._config = resolve("softmax", data="mini")
        self._plan = Plan("softmax", "l2=0", tuner="random", max_trials=None, objective="val_loss", executions=1)

    def make(self, rng: random.Random) -> bytes:
        return mutators.word(rng, rng.choice(("first", "a b", "20261128-120000-seed0", "shipped", "ä"))).encode(
            "utf-8", "surrogatepass")

    def check(self, content: bytes) -> None:
        name = content.decode("utf-8", "surrogatepass")
        found, said = refused(lambda: folders.create("logs", self._config, name))
        if not said:
            if found.path.parent != pathlib.Path("logs", "softmax") or not found.path.is_dir():
                wrong(f"{found.path}: elsewhere")
            folders.remove_if_unused(found)
        path, said = refused(lambda: sweep_folder(self._plan, "logs", name))
        if not said and path.parent != pathlib.Path("logs", "sweeps"):
            wrong(f"{path}: elsewhere")


class Spaces(Target):
    """`--space`: one that is read has a canonical spelling, and each of its ends is a run or is refused."""

    name, batch = "spaces", 2000

    def make(self, rng: random.Random) -> bytes:
        clauses = [clause for _ in range(rng.choice((1, 1, 2))) for clause in rng.choice(SPACES).split(";")]
        if rng.random() < 0.3:
            name = rng.choice(space.NAMES)
            clauses.append(f"{name}=" + ",".join(given(rng, name) for _ in range(rng.choice((1, 2, 30)))))
        text = ";".join(rng.sample(clauses, len(clauses)))
        if rng.random() < 0.6:
            text = mutators.word(rng, text, ("log(", "..", "0..1", "1e-6..1e-2", *space.NAMES))
        return packed([rng.choice(MODELS), text, rng.choice(TUNERS)])

    def check(self, content: bytes) -> None:
        model, text, tuner = json.loads(content)
        base = resolve(model, data="mini", ranking=True)
        found, said = refused(lambda: space.parse(text, base))
        if said:
            return
        if space.parse(found.text, base) != found:
            wrong(f"{found.text} is not read back as the same")
        for end in (0, -1):
            values = {parameter.name: parameter.values[end] for parameter in found.parameters}
            config, said = refused(lambda: space.apply(base, values, epochs=7))
            if not said and RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) != config:
                wrong("a trial is not read back as the same")
            points, said = refused(lambda: space.parse_start([dict(values)], found))
            if not said and (points != [values] or space.parse_start(space.spell_start(points), found) != points):
                wrong(f"{values} is not read back as the same")
        refused(lambda: Plan(model, text, tuner=tuner, max_trials=None, objective="val_loss", executions=1,
                             data="mini").text(2, "folder"))


class Train(Target):
    """Flags of `train`: what a dry run prints is the same run again."""

    name, batch = "train_flags", 1000

    def make(self, rng: random.Random) -> bytes:
        names = ("run_name", "logdir", "resume", "config", "from_sweep", "zoo_module")
        more = [f"--{name}={rng.choice(mutators.TEXTS)}" for name in names if rng.random() < 0.03]
        words = [f"--model={rng.choice(MODELS)}", *flags(rng), *more]
        return packed([mutators.word(rng, word) if rng.random() < 0.05 else word for word in words])

    def check(self, content: bytes) -> None:
        words = json.loads(content)
        said = command(train.main, [*words, "--dry_run"])
        if said is None or not said.startswith("{"):
            return
        printed = json.loads(said)
        del printed["parameters"], printed["folder"]
        config = RunConfig.from_dict(printed)
        found = {name: value for name, value in vars(config).items() if name not in ("spec", "recipe", "ranking")}
        known = {name: value for name, value in {**vars(config.recipe), **found}.items()
                 if value != SETTINGS[name].default or name in DEPENDENT}
        if not config.recipe.schedule_epochs:
            known.pop("schedule_epochs", None)
        written = {name: SETTINGS[name].kind.read(SETTINGS[name].kind.write(value)) for name, value in known.items()}
        if overlay(RunConfig(registry.get_spec(config.spec.name), registry.Recipe()), **written) != config:
            wrong("flags that say the same are another run")


class Others(Target):
    """Flags of the other commands, as far as they go without training anything."""

    name, batch = "flags", 1000

    def prepare(self, folder: pathlib.Path) -> None:
        (folder / "logs").mkdir()
        (folder / "logs" / "file.txt").write_text("x")

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(8)
        values = (sweep, results, runs, predict, evaluate, export, report, train)[number].define_flags()
        names = [name for name in values if name not in ("flagfile", "undefok", "zoo_module", "scheduler")]
        chosen = rng.sample(names, rng.choice((1, 1, 2, 3, 4)))
        words = []
        for name in chosen:
            flag = values[name]
            choices = getattr(flag.parser, "enum_values", None)
            text = rng.choice(choices) if choices and rng.random() < 0.7 else rng.choice((
                *mutators.TEXTS, "logs", "logs/file.txt", "4L", "softmax,2L", "0,1", "shift", "*", "dropout", "epochs",
                "x.html", "x.png", "mini", rng.choice(SPACES), str(rng.choice(mutators.BOUNDS))))
            if name in SETTINGS and rng.random() < 0.7:
                text = given(rng, name)
            bare = flag.boolean and rng.random() < 0.7
            words.append(f"--{name}" if bare else f"--{name}={text}")
        words = [mutators.word(rng, word) if rng.random() < 0.05 else word for word in words]
        loose = rng.sample(("logs/none.png", "logs", "-", "\x00", "--", "--help"), rng.choice((0, 0, 0, 1)))
        return packed([str(number), *words, *loose])

    def check(self, content: bytes) -> None:
        number, *words = json.loads(content)
        if number == "0":
            command(sweep.main, ["--model=4L", "--data=mini", *words, "--dry_run"], failures=True)
        elif number == "1":
            command(results.main, [*words, "--dry_run"])
        elif number == "2":
            kept = (word for word in words if not word.startswith("--prune"))
            command(runs.main, ["--logdir=logs", *kept, "--limit=3"])
        elif number == "3":
            self._parse(predict, words, loose=True)
        else:
            self._parse((evaluate, export, report, train)[int(number) - 4], words)

    @staticmethod
    def _parse(module: object, words: list[str], *, loose: bool = False) -> None:
        values = module.define_flags()  # type: ignore[attr-defined]
        _, said = refused(lambda: cli.parse(values, words, words=loose))
        if said:
            return
        if "tta" in values:
            refused(lambda: views.parse(values.tta))
        if module is report:
            chosen, said = refused(lambda: experiments.select(values.only))
            if not said and values.seeds < 4:
                refused(lambda: report.plan(chosen, seeds=values.seeds, quick=values.quick, data=values.data,
                                            data_dir=values.data_dir))


TARGETS = (Names(), Folders(), Spaces(), Train(), Others())
