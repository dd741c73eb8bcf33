"""What a watched run showed of its models beyond numbers: modes, structure, copies, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class PassObservation:
    """Calls of one outermost module in one mode, within a deep step.

    Attributes:
        module: Its class.
        is_training: Whether it was in training mode.
        with_gradient: Whether gradients were enabled.
        num_calls: How often it was called so.
        got_gradient: Whether a backward came back to what it returned.
        num_trained: Parameters of it that optimizers which have stepped hold.
        active: Names of modules in it that act by mode, as dropout and batch norm do, and were in training mode.
        inactive: Names of those that were in eval mode.
        asking: Names of other modules in it whose `forward` looks at the mode itself.
        num_dropouts: How many of `active` and `inactive` drop something.
        batch_norm_momenta: Different values of `momentum` among its batch norms in training mode.
        still_batch_norms: Names of those whose momentum is 0.
        num_untouched_batch_norms: Its batch norms whose running statistics no batch has ever reached.
    """

    module: str
    is_training: bool
    with_gradient: bool
    num_calls: int = 0
    got_gradient: bool = False
    num_trained: int = 0
    active: list[str] = field(default_factory=list)
    inactive: list[str] = field(default_factory=list)
    asking: list[str] = field(default_factory=list)
    num_dropouts: int = 0
    batch_norm_momenta: list[float] = field(default_factory=list)
    still_batch_norms: list[str] = field(default_factory=list)
    num_untouched_batch_norms: int = 0


@dataclass(slots=True)
class ProbeObservation:
    """What a copy of a trained model did in eval mode, when it was called after the run with a batch of a deep step.

    Shares are the largest change of an output, over the largest absolute output.

    Attributes:
        module: Class of the model.
        step: The deep step whose batch and weights it was.
        num_samples: Size of the first dimension of the batch.
        obstacle: Why nothing could be probed; None when something was.
        repeat_change: Share by which the same batch twice gave different outputs.
        random_functions: Functions called on the way that draw random numbers, noise and sampling among them.
        dropouts: Dropout that was in force although the model was in eval mode, each with the module it is in.
        is_constant: Whether not one bit of the output changed with other samples in the place of each; None where
            that was not tried.
        sample_change: Share by which outputs of samples changed with another one in the place of the last, or of the
            first; None where the batch dimension is not certain.
        predicts_next: Whether the targets of a loss are the tokens, shifted by one.
        future_change: Share by which scored positions changed with the tokens after them; None where it does not
            predict the next token.
        future_position: The first of them, from 0.
        future_length: Positions of a sequence.
        ignores_position: Whether one token at all positions gives the same output at all of them, although the
            model has a parameter for positions.
    """

    module: str
    step: int
    num_samples: int = 0
    obstacle: str | None = None
    repeat_change: float | None = None
    random_functions: list[str] = field(default_factory=list)
    dropouts: list[str] = field(default_factory=list)
    is_constant: bool | None = None
    sample_change: float | None = None
    predicts_next: bool = False
    future_change: float | None = None
    future_position: int | None = None
    future_length: int | None = None
    ignores_position: bool | None = None


@dataclass(slots=True)
class CopyObservation:
    """A copy of a trained model, as found on deep steps: another module, or a mapping of tensors.

    Attributes:
        name: Variable or attribute that holds it; "" where only its calls were seen.
        kind: Its class.
        place: The function or class that variable or attribute is of.
        model: Class of the trained model.
        is_same_object: Whether it is the trained model itself under another name.
        shares_storage: Whether its tensors are those of the trained model.
        steps: Deep steps at which it was looked at.
        has_moved: For each but the first, whether it had changed since the one before.
        model_has_moved: The same of the trained model.
        distances: For each, norm of its difference to the model, over the norm of the model's last update; None
            where that update was not measured or 0.
        num_updates: Calls of its `update_parameters`, for torch's own averaged models.
        num_evaluations: Its calls in eval mode or without gradients.
        num_evaluated_steps: In how many steps, or gaps between steps, these were.
    """

    name: str
    kind: str
    place: str
    model: str
    is_same_object: bool = False
    shares_storage: bool = False
    steps: list[int] = field(default_factory=list)
    has_moved: list[bool] = field(default_factory=list)
    model_has_moved: list[bool] = field(default_factory=list)
    distances: list[float | None] = field(default_factory=list)
    num_updates: int | None = None
    num_evaluations: int = 0
    num_evaluated_steps: int = 0


@dataclass(slots=True)
class LoadObservation:
    """One `load_state_dict` of a model that trains.

    Attributes:
        after_step: Steps done before.
        model: Its class.
        sources: Names of its copies, as deep steps had found them, that it equals since.
    """

    after_step: int
    model: str
    sources: list[str] = field(default_factory=list)
