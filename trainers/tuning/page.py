"""What a sweep has taught as text, and as a page: one self-contained HTML file, with its plots as PNG files beside it.

Two plots: of each hyper-parameter all trials, with the mean of each level and its 95 % interval, and of two listed ones
the mean of each combination. Importing it brings no matplotlib.
"""

from __future__ import annotations

import html
import io
import math
import pathlib
from typing import TYPE_CHECKING, Any, Iterable, Sequence

import numpy as np

from fmnist_zoo import card
from fmnist_zoo.files import atomic_write
from trainers.running import plotting, webpage
from trainers.tuning.lessons import SEEDS, Effect, Lessons, Levels, label, learn
from trainers.tuning.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "report.html"  # of the page in the sweep's own folder
MOST_ROWS = 50  # of trials on the page; trials.csv has all
FEW = 0.4  # trials are too few if they show only what explains more than this share of the variance
DPI, ACROSS = 88, 4  # of plots: their resolution, and the panels in a row
MOST_CELLS = 400  # of a heat map
EQUAL, WORSE = "#0072B2", "#D55E00"  # blue and vermilion, which colour-blind people tell apart (Okabe and Ito)
EXPLAINED = """
<h2>How it is computed</h2>
<ul>
<li><b>Equal to the best</b>: within Tukey's honestly significant difference of all trials that are compared. It allows
for their number, and for the luck of the one that came first: in 95 of 100 sweeps no trial is called worse that is not.
With several executions the noise is what the seeds leave beyond the means of their trial and of their seed; else half
of the variance of the difference between a trial's scores on the two halves of the validation images.</li>
<li><b>Share and p</b>: the share of the variance between trials that least squares explain, and how likely as much is
explained when the objectives are permuted, by a beta distribution with the mean and variance of all permutations, and
by Holm for all hyper-parameters. Numbers are tested by their trend, linear and quadratic: in a range's own scale, or
in the places of listed numbers. Other values are tested as they are. With five trials for each parameter of the model
all hyper-parameters are in it together, else each is tested alone.</li>
<li><b>Mean</b>: of the trials with this value. <b>Adjusted mean</b>, where all are in one model: with the others held
equal. The 95 % interval is Student's. It takes the spread among trials of equal value as proportional to their mean, so
it is symmetrical in the logarithm of the loss (or of the share of wrong answers). Ranges are cut into parts with about
equally many trials.</li>
<li><b>Costs</b>: how much worse the mean is than that of the best value, where the hyper-parameter has an effect.
<b>Worse</b>: by Tukey's and Kramer's test of its values.</li>
</ul>"""


def text(study: Study) -> str:
    """What the completed trials have taught, as sentences and two tables; empty if none has completed."""
    lessons = learn(study)
    if lessons is None:
        return ""
    parts = [f"what {card.counted(len(lessons.trials), 'trial')} taught:",
             "\n".join(f"- {sentence}" for sentence in sentences(study, lessons))]
    heads, *rows = effect_rows(lessons)
    if rows:  # the trials differ
        parts += [card.aligned(importance_rows(lessons), numeric=("share of variance", "p")),
                  card.aligned([heads, *rows], numeric=[head for head in heads[2:] if head])]
    return "\n\n".join(parts)


def sentences(study: Study, lessons: Lessons) -> list[str]:
    """Which trials equal the best, which hyper-parameters have an effect, what their values cost, what is not known."""
    return [_equal_to_best(study, lessons), *_basis(lessons), *_found(lessons), *_not_found(lessons)]


def _equal_to_best(study: Study, lessons: Lessons) -> str:
    ties = lessons.ties
    if ties is None:
        compared = study.ranked[:lessons.rivals]
        if len({trial.score for trial in compared}) > 1:
            return (f"Which of the {len(compared)} trials are better than others cannot be told: those that learned "
                    "something are too few to know the noise.")
        return "There is one trial to compare." if len(compared) == 1 else f"All {len(compared)} trials are equal."
    epochs = ties.among[0].epochs
    among = f"{len(ties.among)} trials" + (f" of {card.counted(epochs, 'epoch')}" if epochs else "")
    group = len(ties.group)
    found = (f"None of the {among} can be told from the best" if group == len(ties.among) else
             f"Trial {ties.group[0].name} is better than all others of the {among}" if group == 1 else
             f"The first {group} of the {among} cannot be told from the best")
    noise = f"the {study.executions} seeds" if ties.source == SEEDS else (
        "the two halves of the validation images (another seed's luck is not in it; --executions=3 would measure that)")
    return f"{found}. A trial is worse if it is more than {_amount(ties.margin)} behind, by the noise of {noise}."


def _basis(lessons: Lessons) -> list[str]:
    found = []
    trials = card.counted(len(lessons.trials), "trial")
    if epochs := lessons.trials[0].epochs:
        found.append(f"Effects are those of the first rung: {trials} of {card.counted(epochs, 'epoch')}.")
    if lessons.guesses:
        found.append(f"{lessons.guesses} of {trials} learned nothing; they count as guesses among ten classes.")
    return found


def _found(lessons: Lessons) -> list[str]:
    found = []
    for effect in _ordered(lessons):
        if effect.found:
            worse = [f"{words} costs {_amount(effect.losses[level])}"
                     for level, words in enumerate(effect.levels.labels) if effect.worse[level]]
            found.append(f"{effect.name} explains {100 * effect.share:.0f} % of the variance (p {_p(effect.p)})"
                         + (f"; {_list(worse, 'and')} against its best value." if worse else "."))
    return found


def _not_found(lessons: Lessons) -> list[str]:
    varied = [effect for effect in lessons.effects if effect.varied]
    silent = [effect.name for effect in varied if not effect.found]
    if not varied:
        return ["Every hyper-parameter has one value in these trials."]
    if not silent:
        return []
    names, trials = _list(silent, "or"), card.counted(len(lessons.trials), "trial")
    if math.isnan(lessons.visible):
        if lessons.ties and len(varied) == 1 and max(varied[0].levels.counts) == 1:
            return [f"Each value of {names} has one trial, so that its rank says all."]
        return [f"Too few trials to tell whether {names} matters: {trials} leave too little to know the noise."]
    limit = (f"{trials} for {card.counted(len(varied), 'hyper-parameter')} show at best what explains "
             f"{100 * lessons.visible:.0f} % of the variance")
    if _too_few(lessons):
        return [f"Too few trials to tell whether {names} matters: {limit}."]
    return [f"No effect of {names} can be told from noise: {limit}."]


def _too_few(lessons: Lessons) -> bool:
    """Whether only a large effect would be found, or none."""
    return not lessons.visible <= FEW


def _ordered(lessons: Lessons) -> list[Effect]:
    """The effect that explains most first."""
    return sorted(lessons.effects, key=lambda effect: -np.nan_to_num(effect.share, nan=-1))


def importance_rows(lessons: Lessons) -> list[tuple[str, ...]]:
    """A head and a row for each hyper-parameter, the one that explains most first."""
    rows: list[tuple[str, ...]] = [("hyper-parameter", "tested by", "share of variance", "p")]
    for effect in _ordered(lessons):
        test = "trend" if effect.levels.scale else "values"
        rows.append((effect.name, test, f"{effect.share:.2f}", _p(effect.p)) if effect.varied else
                    (effect.name, "one value", "-", "-"))
    return rows


def effect_rows(lessons: Lessons) -> list[tuple[str, ...]]:
    """A head and a row for each value of each hyper-parameter."""
    adjusted = any(effect.adjusted is not None for effect in lessons.effects)
    rows: list[tuple[str, ...]] = [
        ("hyper-parameter", "value", "trials", "mean", *["adjusted mean"] * adjusted, "95 % interval", "costs", "")]
    for effect in lessons.effects:
        for level, words in enumerate(effect.levels.labels if effect.varied else ()):
            low, high = effect.low[level], effect.high[level]
            note = "best" if not effect.losses[level] else "worse" if effect.worse[level] else ""
            rows.append((
                effect.name, words, str(effect.levels.counts[level]), f"{effect.means[level]:.4f}",
                *[f"{mean[level]:.4f}" for mean in [effect.adjusted] if mean is not None],
                "-" if math.isnan(low) else f"{low:.4f} to {high:.4f}",
                f"{effect.losses[level]:.4f}" if effect.found else "-", note if effect.found else ""))
    return rows


def write(study: Study, path: pathlib.Path) -> None:
    """Writes the page to `path`, `<name>.html`, and its plots beside it as `<name>-effects.png` and
    `<name>-combinations.png`; in the sweep's own folder as `effects.png` and `combinations.png`.

    Raises:
        PlotError: whatever has failed, in one line.
    """
    start = "" if path.absolute().parent == study.path.absolute() else f"{path.stem}-"
    try:
        with plotting.own_settings():
            lessons = learn(study)
            pictures = {}
            if lessons:
                figures = {"effects": _effects(study, lessons), "combinations": _combinations(study, lessons)}
                pictures = {name: _png(figure) for name, figure in figures.items() if figure}
            document = _document(study, lessons, pictures)
        for name, picture in pictures.items():
            with atomic_write(path.with_name(f"{start}{name}.png")) as file:
                file.write(picture)
        with atomic_write(path, "w") as file:
            file.write(document)
    except (OSError, plotting.PlotError) as error:
        raise plotting.PlotError(f"{path} is not written: {getattr(error, 'strerror', None) or error}") from error


def _document(study: Study, lessons: Lessons | None, pictures: dict[str, bytes]) -> str:
    title = f"Sweep {study.path.absolute().name}"
    recipe = study.base.recipe
    facts = {"model": f"{study.base.spec.name}: {study.base.spec.description}", "space": study.space.text,
             "tuner": study.manifest["tuner"], "objective": study.manifest["objective"],
             "trained": f"up to {card.counted(recipe.epochs, 'epoch')} at batch size {recipe.batch_size}, "
                        f"seed {study.base.seed}"}
    parts = [f"<h1>{html.escape(title)}</h1>",
             "<p>" + "<br>".join(f"{name}: {html.escape(what)}" for name, what in facts.items()) + "</p>"]
    if lessons is None:
        failed = [f"{trial.name} failed: {trial.reason}" for trial in study.ended]
        parts += [f"<p>{html.escape(line)}</p>" for line in ("No trial has completed.", *failed[:MOST_ROWS])]
        return webpage.document(title, "\n".join(parts))
    images = {name: f'<p><img src="{webpage.source(picture)}" alt="{name}"></p>' for name, picture in pictures.items()}
    parts += ["<h2>What it has taught</h2>\n<ul>",
              *(f"<li>{html.escape(sentence)}</li>" for sentence in sentences(study, lessons)), "</ul>",
              _html_table(importance_rows(lessons)), "<h2>Trials</h2>", _trials(study, lessons)]
    if "effects" in images:
        parts += ["<h2>Values</h2>", images["effects"],
                  "<p>A bar is the mean of trials with equal or neighbouring values, a shade its 95 % interval.</p>",
                  _html_table(effect_rows(lessons))]
    if "combinations" in images:
        parts += ["<h2>Combinations</h2>", images["combinations"], "<p>The mean of the trials of each combination.</p>"]
    parts += [EXPLAINED.strip(),
              f"<p>To train the best trial in full: <code>{html.escape(study.retrain)}</code></p>"]
    return webpage.document(title, "\n".join(parts))


def _trials(study: Study, lessons: Lessons) -> str:
    """The ranked trials as a table; a column says which cannot be told from the best."""
    equal = {trial.name for trial in lessons.ties.group} if lessons.ties else set()
    among = {trial.name for trial in lessons.ties.among} if lessons.ties else set()
    seeds = study.executions > 1
    rows: list[Sequence[str]] = [("rank", "trial", *study.space.names, study.manifest["objective"],
                                  *["std over seeds"] * seeds, "behind the best", "epochs", "equal to the best")]
    for rank, trial in enumerate(study.ranked[:MOST_ROWS], 1):
        values = [label(float(f"{value:.4g}") if isinstance(value, float) else "-" if value is None else value)
                  for value in map(trial.values.get, study.space.names)]
        deviation = [f"{trial.objective_std:.4f}"] if seeds else []
        rows.append((str(rank), trial.name, *values, f"{trial.score:.4f}", *deviation,
                     f"{abs(trial.score - study.ranked[0].score):.4f}", f"{trial.trained_epochs:g}",
                     "yes" if trial.name in equal else "no" if trial.name in among else "-"))
    rest = len(study.ranked) - MOST_ROWS
    return _html_table(rows) + (f"\n<p>{rest} more are in trials.csv.</p>" if rest > 0 else "")


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first row is the head."""
    head, *others = (("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row))
                     for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows))
    lines = "\n".join(f"<tr>{row}</tr>" for row in others)
    return f'<table class="plain">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>'


def _effects(study: Study, lessons: Lessons) -> Figure | None:
    """A panel for each hyper-parameter with two values or more, if there is one: the trials, those that equal the best
    marked, and the mean of each level."""
    from matplotlib.figure import Figure

    effects = [effect for effect in lessons.effects if effect.varied]
    if not effects:
        return None
    columns, rows = min(len(effects), ACROSS), -(-len(effects) // ACROSS)
    figure = Figure(figsize=(max(5, 3.4 * columns), 3.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    names = {trial.name for trial in lessons.ties.group} if lessons.ties else set()
    equal = np.array([trial.name in names for trial in lessons.trials])
    marks = [(equal, "o", EQUAL, "equal to the best"), (~equal, "x", WORSE, "other")]
    if not equal.any():  # nothing is known, or the best are longer trials than those that are drawn
        marks = [(~equal, "o", EQUAL, "trial")]
    for axis, effect in zip(axes, effects):
        for chosen, mark, color, words in marks:
            axis.plot(effect.levels.places[chosen], lessons.scores[chosen], mark, color=color, label=words)
        _draw_means(axis, effect)
        _scale(axis, effect.levels)
        axis.set_xlabel(_plain(effect.name))
        axis.set_title(f"{100 * effect.share:.0f} % of the variance, p {_p(effect.p)}" if effect.found else
                       "too few trials to tell" if _too_few(lessons) else "no effect told from noise", fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[len(effects):]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel(study.manifest["objective"])
    margin = 0.06 * float(np.ptp(lessons.scores)) or 0.01
    axes[0].set_ylim(lessons.scores.min() - margin, lessons.scores.max() + margin)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=4, fontsize=9)
    return figure


def _draw_means(axis: Any, effect: Effect) -> None:
    """The mean of each level, as a bar over the values in it, and its interval as a shade."""
    half = 0.0 if effect.levels.ranged else 0.25
    for level, mean in enumerate(effect.means if effect.adjusted is None else effect.adjusted):
        inside = effect.levels.places[effect.levels.index == level]
        ends = [inside.min() - half, inside.max() + half]
        first = level == 0  # one entry in the legend
        axis.plot(ends, [mean, mean], color="black", marker="|", label="mean" if first else None)
        axis.fill_between(ends, effect.low[level], effect.high[level], color="black", alpha=0.12, linewidth=0,
                          label="95 % interval" if first else None)


def _scale(axis: Any, levels: Levels) -> None:
    """Names the places on the x axis."""
    if not levels.ranged:
        _ticks(axis, levels)
        axis.set_xlim(-0.5, len(levels.labels) - 0.5)
    elif levels.scale == "log":
        axis.set_xscale("log")
        ends = np.nanmin(levels.places), np.nanmax(levels.places)
        ticks = [float(f"{place:.1g}") for place in np.geomspace(*ends, 3)]
        axis.set_xticks(ticks, map(label, ticks))
        axis.set_xticks([], minor=True)


def _ticks(axis: Any, levels: Levels) -> None:
    turned = len(levels.labels) > 5 or any(len(words) > 8 for words in levels.labels)
    axis.set_xticks(range(len(levels.labels)), map(_plain, levels.labels), rotation=45 if turned else 0,
                    ha="right" if turned else "center", rotation_mode="anchor")


def _combinations(study: Study, lessons: Lessons) -> Figure | None:
    """A heat map of the mean of each combination of two listed hyper-parameters, those that explain most; None without
    two, or if it were too large."""
    import matplotlib
    from matplotlib.figure import Figure

    listed = [effect for effect in _ordered(lessons) if not effect.levels.ranged and effect.varied]
    if len(listed) < 2:
        return None
    across, down = (effect.levels for effect in listed[:2])
    has = (across.index >= 0) & (down.index >= 0)
    where = down.index[has], across.index[has]
    trials, table = np.zeros((2, len(down.labels), len(across.labels)))
    np.add.at(trials, where, 1)
    np.add.at(table, where, lessons.scores[has])
    if table.size > MOST_CELLS:
        return None
    table = np.where(trials, table / np.maximum(trials, 1), np.nan)
    figure = Figure(figsize=(2.6 + 0.9 * table.shape[1], 1.4 + 0.6 * table.shape[0]), layout="constrained")
    axis = figure.subplots()
    colors = matplotlib.colormaps["viridis_r" if study.objective.lower_is_better else "viridis"]
    image = axis.imshow(table, cmap=colors, aspect="auto")
    bright = np.asarray(colors(image.norm(table)))[..., :3] @ (0.3, 0.6, 0.1) > 0.5
    for (line, column), value in np.ndenumerate(table):
        if trials[line, column]:
            axis.text(column, line, f"{value:.4f}", ha="center", va="center", fontsize=9,
                      color="black" if bright[line, column] else "white")
    _ticks(axis, across)
    axis.set_yticks(range(len(down.labels)), map(_plain, down.labels))
    axis.set(xlabel=_plain(listed[0].name), ylabel=_plain(listed[1].name))
    figure.colorbar(image, label=study.manifest["objective"])
    return figure


def _png(figure: Figure) -> bytes:
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def _plain(words: str) -> str:
    """Text that matplotlib does not take for a formula, cut at 24 letters."""
    return (words if len(words) <= 24 else f"{words[:22]} ...").replace("$", r"\$")


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def _amount(value: float) -> str:
    """With two digits: 0.040, 0.0012."""
    return f"{value:#.2g}".rstrip(".") if value >= 1e-4 else label(float(f"{value:.2g}"))


def _list(words: Iterable[str], last: str) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
