"""Faults that one run cannot show, and why: nothing in it contradicts anything. They are left out of the gallery."""

from __future__ import annotations

NEEDS_BASELINE: dict[str, str] = {
    "data set built anew in every step": "the run is only slower than it was",
    "a sleep, or a synchronisation, in every step": "the run is only slower than it was",
    "clipping taken out": "a run without clipping is a run like any other",
    "weight decay dropped": "nothing tells that there was any",
    "dropout or augmentation left out": "nothing tells that there was any",
    "momentum or Adam's betas changed": "any value in the usual range is as good as another to look at",
    "learning rate twice as high": "both rates train",
    "a layer less, or a narrower one": "the model is another, and a whole one",
    "another schedule of the same shape": "both begin and end where a schedule does",
    "learning rate not restored on resume": "it takes a second run, which goes on from the first",
    "data read from the start again on resume": "it takes a second run, which goes on from the first",
    "ranks with the same data": "it takes several ranks",
    "a metrics file or checkpoint that was never promised": "without a promise nothing is missing",
}
