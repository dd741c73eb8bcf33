"""What a checkpoint held of the model that trained, compared when it was written, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class SavedModelObservation:
    """A mapping of tensors in a checkpoint that has the names of a model in training.

    Attributes:
        place: Its key in the checkpoint; empty for the checkpoint itself.
        model: Class of the model in training.
        num_trained: Tensors of that model that optimizers hold; tied ones count once.
        num_found: How many of them are there with their shape.
        missing: Names of the first ones that are not.
        num_missing: How many are not.
        missing_buffers: Names of the first persistent buffers, such as the statistics of a norm, that are not.
        num_missing_frozen: Parameters that no optimizer trains and that are not there.
        non_finite: Names of the first tensors with a number that is not finite.
        num_moved: Trained tensors whose values were compared and had changed since the first step.
        num_equal: Those of them that are saved as the model has them.
        num_initial: Those of them that are saved as they were before the first step.
        similarity: Cosine of the saved matrices and the model's; None without a matrix of some size.
    """

    place: str
    model: str
    num_trained: int
    num_found: int = 0
    missing: list[str] = field(default_factory=list)
    num_missing: int = 0
    missing_buffers: list[str] = field(default_factory=list)
    num_missing_frozen: int = 0
    non_finite: list[str] = field(default_factory=list)
    num_moved: int = 0
    num_equal: int = 0
    num_initial: int = 0
    similarity: float | None = None
