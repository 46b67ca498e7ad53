"""The page of a sweep, as one self-contained HTML file, and its plots as PNG files beside it."""

from __future__ import annotations

import html
import pathlib
from typing import Sequence

from fmnist_zoo import card
from fmnist_zoo.files import atomic_write
from trainers.running import webpage
from trainers.tuning import figures, sentences
from trainers.tuning.lessons import Lessons, learn
from trainers.tuning.study import Study
from trainers.tuning.ties import SEEDS

MOST_ROWS = 50  # of trials on the page; trials.csv has all
EXPLAINED = """
<h2>How it is computed</h2>
<ul>
<li><b>Importance</b>: PED-ANOVA (Watanabe, Bansal, Hutter 2023, IJCAI), how much the values among the best tenth of the
trials (at least 5) differ from those among all; the mean of random choices of as many trials is subtracted, and
p is the share of these choices that differ as much, by Holm for all hyper-parameters.</li>
<li><b>Variance</b>: the share of the objective's variance that the main effect explains, less what noise explains, and
Holm's p of its F-test. Importance asks what the best trials have in common, variance what moves all trials.</li>
<li><b>Mean</b>: by least squares of an additive model, at the average over the values of the other hyper-parameters. In
a complete grid it is the plain mean. The 95 % interval is that of Student's t with the residuals of all trials or, if
that is more, the spread of the effect over the seeds of the executions. With too few trials for this model, each
hyper-parameter is taken alone. A range is cut into bins.</li>
<li><b>Worse</b>: by Tukey's and Kramer's test of all values against each other, at 5 % divided by the number of
hyper-parameters.</li>
<li><b>Interaction</b>: the standard deviation of what the means of the combinations have beyond both effects, after
what noise alone explains in 95 of 100 cases was subtracted from the variance, and Holm's p of its F-test. The table of
the strongest pair is shrunk in proportion.</li>
<li><b>Equal to the best</b>: within Tukey's honestly significant difference of all trials. It allows for their number,
and for the luck of the one that came first: in 95 of 100 sweeps no trial is called worse that is not. SEEN</li>
</ul>"""
OF_SEEDS = """The noise is what scores leave beyond the means of their trial and of their seed. All trials are scored on
the same images; how they would do on others is not in it."""
OF_HALVES = """The noise is half of the variance of the difference between a trial's scores on the two halves of the
validation images, after regression on the trials' averages. What another seed would change is not in it."""


def write(study: Study, path: pathlib.Path) -> None:
    """Writes the page to `path`, `<name>.html`, and its plots beside it as `<name>-objective.png`, `<name>-effects.png`
    and so on; in the sweep's own folder their names are `objective.png`, `effects.png`.

    Raises:
        OSError: if they cannot be written.
    """
    lessons = learn(study)
    pictures: dict[str, bytes] = {}
    if lessons:
        drawn = {"objective": figures.trials(study), "importance": figures.importances(lessons),
                 "effects": figures.effects(lessons), "interactions": figures.interactions(lessons)}
        pictures = {name: figures.png(figure) for name, figure in drawn.items() if figure}
    start = "" if path.absolute().parent == study.path.absolute() else f"{path.stem}-"
    for name, picture in pictures.items():
        with atomic_write(path.with_name(f"{start}{name}.png")) as file:
            file.write(picture)
    with atomic_write(path, "w") as file:
        file.write(page(study, lessons, pictures))


def page(study: Study, lessons: Lessons | None, pictures: dict[str, bytes]) -> str:
    """The HTML file; `pictures` are PNG files by the name of their section."""
    title = f"Sweep {study.path.absolute().name}"
    recipe = study.base.recipe
    facts = [("model", f"{study.base.spec.name}: {study.base.spec.description}"), ("space", study.space.text),
             ("tuner", study.manifest["tuner"]), ("objective", study.manifest["objective"]),
             ("trained", f"up to {card.counted(recipe.epochs, 'epoch')} at batch size {recipe.batch_size}, "
                         f"seed {study.base.seed}")]
    parts = [f"<h1>{html.escape(title)}</h1>",
             "<p>" + "<br>".join(f"{name}: {html.escape(str(what))}" for name, what in facts) + "</p>"]
    if lessons is None:
        parts.append("<p>No trial has completed yet.</p>")
        return webpage.document(title, "\n".join(parts))
    parts += [f"<h2>What it has taught</h2>\n<p>From {html.escape(sentences.basis(lessons))}:</p>",
              "<ul>", *(f"<li>{html.escape(sentence)}</li>" for sentence in sentences.sentences(lessons, study.space)),
              "</ul>"]
    source = OF_SEEDS if lessons.noise and lessons.noise.source == SEEDS else OF_HALVES if lessons.noise else ""
    sections = (("objective", "Trials", _trials(study, lessons)),
                ("importance", "Importance", table(sentences.importance_rows(lessons))),
                ("effects", "Main effects", table(sentences.effect_rows(lessons))),
                ("interactions", "Interactions", table(sentences.pair_rows(lessons)[:MOST_ROWS])))
    for name, heading, rows in sections:
        parts.append(f"<h2>{heading}</h2>")
        if name in pictures:
            parts.append(f'<p><img src="{webpage.source(pictures[name])}" alt="{heading}"></p>')
        elif name == "interactions":
            parts.append("<p>There are too few trials, or hyper-parameters, to tell.</p>")
            continue
        parts.append(rows)
    parts += [EXPLAINED.strip().replace("SEEN", source),
              f"<p>To train the best trial in full: <code>{html.escape(study.retrain)}</code></p>"]
    return webpage.document(title, "\n".join(parts))


def _trials(study: Study, lessons: Lessons) -> str:
    """The ranked trials as a table; a column says which cannot be told from the best."""
    ties = lessons.ties
    equal = {trial.name for trial in ties.trials} if ties else set()
    among = {trial.name for trial in ties.among} if ties else set()
    best = study.ranked[0].score
    seeds = study.executions > 1
    rows: list[Sequence[str]] = [("rank", "trial", *study.space.names, lessons.objective,
                                  *["std over seeds"] * seeds, "behind the best", "epochs", "equal to the best")]
    for rank, trial in enumerate(study.ranked[:MOST_ROWS], 1):
        cells = study.row(trial)
        said = "yes" if trial.name in equal else "no" if trial.name in among else "-"
        values = [sentences.short(cells[name]) for name in study.space.names]
        deviation = [f"{cells['objective_std']:.4f}"] if seeds else []
        rows.append((str(rank), trial.name, *values, f"{trial.score:.4f}", *deviation,
                     f"{abs(trial.score - best):.4f}", f"{cells['epochs']:g}", said))
    rest = len(study.ranked) - MOST_ROWS
    return table(rows) + (f"\n<p>{rest} more are in trials.csv.</p>" if rest > 0 else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; the first row is the head."""
    head, *others = (("".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row))
                     for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows))
    lines = "\n".join(f"<tr>{row}</tr>" for row in others)
    return f'<table class="plain">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>'
