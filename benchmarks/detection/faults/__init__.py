"""All faults of the gallery, the programs they are put into, and the slice that the tests run."""

from __future__ import annotations

from benchmarks.detection.fault import Fault  # noqa: TC001  the type of the constant
from benchmarks.detection.faults.adversarial import ADVERSARIAL_FAULTS
from benchmarks.detection.faults.data import DATA_FAULTS
from benchmarks.detection.faults.files import FILE_FAULTS
from benchmarks.detection.faults.gradients import GRADIENT_FAULTS
from benchmarks.detection.faults.learning import LEARNING_FAULTS
from benchmarks.detection.faults.modes import MODE_FAULTS
from benchmarks.detection.faults.precision import PRECISION_FAULTS
from benchmarks.detection.faults.schedule import SCHEDULE_FAULTS
from benchmarks.detection.faults.structure import STRUCTURE_FAULTS
from benchmarks.detection.faults.updates import UPDATE_FAULTS

PROGRAMS = (
    "language_model",
    "image_classifier",
    "gan",
    "autoencoder",
    "hf_trainer",
    "lightning_trainer",
)
FAULTS: tuple[Fault, ...] = (
    *LEARNING_FAULTS,
    *GRADIENT_FAULTS,
    *UPDATE_FAULTS,
    *SCHEDULE_FAULTS,
    *MODE_FAULTS,
    *DATA_FAULTS,
    *STRUCTURE_FAULTS,
    *FILE_FAULTS,
    *ADVERSARIAL_FAULTS,
    *PRECISION_FAULTS,
)
BY_ID = {fault.id: fault for fault in FAULTS}
SLICE = (
    ("language_model", "double-softmax"),
    ("language_model", "accumulation-not-token-weighted"),
    ("language_model", "schedule-per-micro-batch"),
    ("language_model", "causal-mask-missing"),
    ("language_model", "ema-never-updated"),
    ("language_model", "checkpoint-misses-keys"),
    ("image_classifier", "copied-optimizer"),
    ("image_classifier", "gradients-never-cleared"),
    ("image_classifier", "left-in-eval"),
    ("image_classifier", "reseeded-each-epoch"),
    ("image_classifier", "nan-backward"),
    ("image_classifier", "losses-kept-with-graph"),
)
