"""Cases of growth: the operation and steps by width and batch, evaluations by samples, data and metrics by rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import nn

from lit_bottleneck import IWAE, VAE, BetaTC, VIBClassifier, metrics
from lit_bottleneck.data import Table
from lit_bottleneck.data.dataset import Examples
from lit_bottleneck.data.evaluation_sampler import EvaluationSampler
from lit_bottleneck.data.image_data_module import ImageDataModule
from lit_bottleneck.data.splits import stratified_split
from tests.benchmarks.growth import Case
from tests.benchmarks.operation import of_ours

Run = Callable[[], object]

WIDTHS = tuple(2**power for power in range(3, 13))
BATCHES = tuple(2**power for power in range(5, 14))
SAMPLES = tuple(2**power for power in range(9))
ROWS = (1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000)
FEATURES, CLASSES, BATCH, WIDTH = 64, 10, 256, 16
N_LOG_N = "N log N of a tree; the callback Factors bounds it by max_rows"


def operation(batch: int, width: int) -> Run:
    return partial(of_ours, torch.randn(batch, 2 * width, requires_grad=True))


def vib(width: int, **arguments: Any) -> VIBClassifier:
    return VIBClassifier(nn.Linear(FEATURES, 2 * width), width, CLASSES, **arguments)


def vae(width: int, **arguments: Any) -> VAE:
    return VAE(nn.Linear(FEATURES, 2 * width), nn.Linear(width, FEATURES), width, "bernoulli", **arguments)


def step(model: Any, batch: int) -> Run:
    """A training step of the model."""
    examples = torch.rand(batch, FEATURES).round(), torch.randint(CLASSES, (batch,))
    return lambda: model.training_step(examples, 0).backward()


def evaluation(model: Any, batch: int = BATCH) -> Run:
    """The predictions of a batch."""
    examples = torch.rand(batch, FEATURES).round(), torch.randint(CLASSES, (batch,))

    def run() -> None:
        with torch.inference_mode():
            model.eval().predict_step(examples, 0)

    return run


def metric(make: Callable[[], Any], calls: Callable[[int], list[tuple[Any, ...]]], batch: int, size: int) -> Run:
    """The updates of a metric by batches, and its result."""
    updates = [call for rows in range(0, size, batch) for call in calls(min(batch, size - rows))]

    def run() -> None:
        one = make()
        for update in updates:
            one.update(*update)
        one.compute()

    return run


def codes(rows: int, width: int = WIDTH) -> list[tuple[Any, ...]]:
    return [(torch.randn(rows, width), torch.randn(rows, width) - 3)]


def labelled(rows: int) -> list[tuple[Any, ...]]:
    return [(*codes(rows)[0], torch.randint(CLASSES, (rows,)))]


def numbers(rows: int, width: int = WIDTH) -> list[tuple[Any, ...]]:
    mean = torch.randn(rows, width)
    return [(mean, mean[:, :2] + torch.randn(rows, 2))]


def factors(rows: int, width: int = WIDTH) -> list[tuple[Any, ...]]:
    return [(mean, (3 * known).round().long().clamp(-5, 5)) for mean, known in numbers(rows, width)]


def samples(rows: int, width: int = WIDTH) -> list[tuple[Any, ...]]:
    return [(torch.randn(rows, width), True), (torch.randn(rows, width), False)]


def paths(rows: int) -> list[tuple[Any, ...]]:
    return [(torch.randn(5, rows, CLASSES).log_softmax(-1), torch.randn(5, rows, WIDTH))]


def by_rows(name: str, make: Callable[[], Any], calls: Any, note: str = "", rows: tuple[int, ...] = ROWS) -> Case:
    return Case(f"rows of {name}", partial(metric, make, calls, 1024), rows, note)


def by_width(name: str, make: Callable[[], Any], calls: Any, note: str = "") -> Case:
    sizes = WIDTHS[:-1] if note else WIDTHS
    return Case(f"width of {name}", lambda width: metric(make, partial(calls, width=width), 512, 512), sizes, note)


def columns(rows: int) -> dict[str, Any]:
    """Twenty numbers of which some are missing, two texts, and a class."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 20))
    y = np.where(x[:, 0] > 0, "yes", "no").astype(object)
    x[rng.random(x.shape) < 0.01] = np.nan
    texts = {name: rng.choice([f"{name} {i}" for i in range(12)], rows).astype(object) for name in ("a", "b")}
    return {**{f"x{place}": column for place, column in enumerate(x.T)}, **texts, "target": y}


def table(rows: int) -> Callable[[], Table]:
    return partial(Table, columns(rows), task="classification", batch_size=1024)


def images(rows: int, **kwargs: Any) -> Callable[[], "SyntheticImages"]:
    pixels = torch.randint(256, (rows, 1, 14, 14), dtype=torch.uint8)
    return partial(SyntheticImages, Examples.of(pixels, torch.randint(CLASSES, (rows,))), **kwargs)


class SyntheticImages(ImageDataModule):
    """Grey images of 14 x 14 random pixels."""

    def __init__(self, examples: Examples, **kwargs: Any) -> None:
        super().__init__(dims=(1, 14, 14), max_value=255, num_classes=CLASSES, batch_size=1024, **kwargs)
        self.examples = examples

    def load(self) -> tuple[Examples, Examples]:
        training, test = stratified_split(self.examples.labels, len(self.examples) // 5, 0)
        return self.examples.select(training), self.examples.select(test)


def epoch(make: Callable[[int], Callable[[], Any]], rows: int) -> Run:
    """Set up data, and read all of them once."""
    make_data = make(rows)

    def run() -> int:
        data = make_data()
        data.setup()
        loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
        return sum(len(batch[0]) for loader in loaders for batch in loader)

    return run


def trained(what: str, rows: int) -> Run:
    """A training epoch, or an evaluation or prediction of all rows, by a trainer."""
    data = table(rows)()
    data.setup()
    model = VIBClassifier(nn.Linear(data.dims[0], 2 * WIDTH), WIDTH, data.num_classes)
    data.predict_part = "train"
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    loader = data.train_dataloader if what == "fit" else data.predict_dataloader

    def run() -> object:
        trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
        return getattr(trainer, what)(model, loader(), **({"verbose": False} if what == "test" else {}))

    return run


def sampled(rows: int) -> Run:
    return lambda: sum(map(len, EvaluationSampler(range(rows), 256, num_replicas=2, rank=1)))


def split(rows: int) -> Run:
    labels = torch.randint(CLASSES, (rows,))
    return lambda: stratified_split(labels, rows // 10, seed=0)


def information() -> metrics.MutualInformation:
    return metrics.MutualInformation(max_codes=1000)


def mixture() -> metrics.ModeCoverage:
    return metrics.ModeCoverage(torch.randn(8, WIDTH), std=1.0)


STEPS = [
    Case("width of the operation, 128", partial(operation, 128), WIDTHS),
    Case("width of a step of VIB, 128", lambda width: step(vib(width), 128), WIDTHS),
    Case("width of a step of VAE, 128", lambda width: step(vae(width), 128), WIDTHS),
    Case("width of a step of BetaTC, 128", lambda width: step(vae(width, objective=BetaTC(1.0, 10**6)), 128), WIDTHS),
    Case("batch of the operation, 32", lambda batch: operation(batch, 32), BATCHES),
    Case("batch of a step of VIB", lambda batch: step(vib(WIDTH), batch), BATCHES),
    Case("batch of a step of VAE", lambda batch: step(vae(WIDTH), batch), BATCHES),
    Case("batch of a step of IWAE(8)", lambda batch: step(vae(WIDTH, objective=IWAE(8)), batch), BATCHES),
    Case("batch of a step of BetaTC", lambda batch: step(vae(WIDTH, objective=BetaTC(1, 10**6, 256)), batch), BATCHES),
    Case("samples of VIB, 256 x 16", lambda count: evaluation(vib(WIDTH, eval_samples=count)), SAMPLES),
    Case("samples of VAE, 256 x 16", lambda count: evaluation(vae(WIDTH, eval_samples=count)), SAMPLES),
    Case("likelihood samples of VAE", lambda count: evaluation(vae(WIDTH, likelihood_samples=count)), SAMPLES),
]

DATA = [
    Case("rows of Table, set up and read", partial(epoch, table), ROWS),
    Case("rows of images, set up and read", partial(epoch, images), ROWS),
    Case("rows of binarised images", partial(epoch, partial(images, binarize="static")), ROWS),
    Case("rows of a stratified split", split, ROWS),
    Case("rows of EvaluationSampler", sampled, ROWS),
    Case("rows of a training epoch of VIB", partial(trained, "fit"), ROWS),
    Case("rows of a test of VIB", partial(trained, "test"), ROWS),
    Case("rows of a prediction by VIB", partial(trained, "predict"), ROWS),
]

METRICS = [
    by_rows("Rate", metrics.Rate, codes),
    by_rows("MarginalMoments", metrics.MarginalMoments, codes),
    by_rows("MutualInformation", information, codes),
    by_rows("ClassConditionalTotalCorrelation", partial(metrics.ClassConditionalTotalCorrelation, CLASSES), labelled),
    by_rows("MIG", metrics.MIG, factors),
    by_rows("SAP of classes", metrics.SAP, factors),
    by_rows("DCI of classes", lambda: metrics.DCI(num_trees=2), factors, N_LOG_N),
    by_rows("DCI of numbers", lambda: metrics.DCI(num_trees=2), numbers, N_LOG_N),
    by_rows("FactorProbe", metrics.FactorProbe, factors),
    by_rows("FrechetDistance", lambda: metrics.FrechetDistance(WIDTH), samples),
    by_rows("KernelDistance", lambda: metrics.KernelDistance(subsets=10), samples),
    by_rows("PrecisionRecall", lambda: metrics.PrecisionRecall(max_samples=5000), samples),
    by_rows("ModeCoverage", mixture, lambda rows: [codes(rows)[0][:1]]),
    by_rows("PathQuality", metrics.PathQuality, paths),
    by_rows("ELBO", metrics.ELBO, lambda rows: [(torch.rand(rows), torch.rand(rows))]),
    by_rows(
        "ImportanceWeightedBound", lambda: metrics.ImportanceWeightedBound(8), lambda rows: [(torch.rand(8, rows),)]
    ),
    by_width("Rate", metrics.Rate, codes),
    by_width("MarginalMoments", metrics.MarginalMoments, codes, "bounded by max_dimensions"),
    by_width("MutualInformation", information, codes, "bounded by max_dimensions"),
    by_width("MIG", metrics.MIG, factors),
    by_width("SAP", metrics.SAP, factors),
    by_width("DCI", lambda: metrics.DCI(num_trees=2), factors),
    by_width("FactorProbe", metrics.FactorProbe, factors),
    by_width("KernelDistance", lambda: metrics.KernelDistance(subsets=2), samples),
    by_width("PrecisionRecall", metrics.PrecisionRecall, samples),
]

CASES = STEPS + DATA + METRICS
