"""Twelve questions to ask of any explanation, and how to read the answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A question.

    Args:
        number: 1 … 12, to which metrics refer.
        title: in a word or two.
        question: what is asked.
        reading: how to read the numbers, in a sentence or two.
        about_methods: whether it is answered by what is known of the attributions, without any metric.
    """

    number: int
    title: str
    question: str
    reading: str
    about_methods: bool = False


CHECKLIST = (
    Point(
        1,
        "Axioms",
        "Does the method keep the properties that are claimed of explanations?",
        "Each number is a relative violation: 0 keeps the axiom. A method may be useful without completeness, but one "
        "that depends on how the same function is written explains the code and not the function.",
    ),
    Point(
        2,
        "Faithfulness",
        "Do the pixels that are called important matter to the prediction?",
        "Compare with the random map: a map that is no better than it says nothing about this model. Removed pixels "
        "make images that the model has never seen, so compare methods on one model rather than models.",
    ),
    Point(
        3,
        "Sanity",
        "Does the map change when the weights are lost?",
        "A similarity near 1 to the map of a randomised network means that the map shows the image, not what was "
        "learned; the edge detector has 1 by construction.",
    ),
    Point(
        4,
        "Stability to noise",
        "Does the map hold still under noise that does not matter to anybody?",
        "Similarities near 1 and sensitivities near 0 are stable. This is the control for point 5: what noise does "
        "at the same ε is not the adversary's work. A map that ignores the image is perfectly stable.",
    ),
    Point(
        5,
        "Stability under attack",
        "Can an adversary change the map?",
        "Compare with point 4 at the same ε, and read it with the share of predictions that stayed the same: a map "
        "that moves while the prediction holds cannot be trusted near this image.",
    ),
    Point(
        6,
        "Class discrimination",
        "Are the maps of two classes different?",
        "A similarity near 1 means that the map shows where something is, not why it is this class.",
    ),
    Point(
        7,
        "Localisation",
        "Does the map point at what is known to matter?",
        "Compare with the random map, which is chance for this size of region. It presumes that the model uses the "
        "region that people would.",
    ),
    Point(
        8,
        "Sparsity and sharpness",
        "Can a person take the map in?",
        "A sparse map is easy to read, right or wrong: read it beside faithfulness. Methods that multiply by the "
        "image inherit its blank background.",
    ),
    Point(
        9,
        "Choices",
        "Does the answer depend on the baseline, the noise, the number of steps?",
        "The similarity to the maps of the same method with other settings; the smallest counts. A method without "
        "settings has nothing to choose.",
    ),
    Point(
        10,
        "Cost",
        "What does a map cost?",
        "Time on this machine, and as a multiple of one gradient.",
        about_methods=True,
    ),
    Point(
        11,
        "Demands on the model",
        "What must the model have for the method to work?",
        "A method that demands more than a gradient may refuse, or explain only a part of, another architecture.",
        about_methods=True,
    ),
    Point(
        12,
        "The model itself",
        "Is the model robust, and do its gradients look like the data?",
        "Many bad explanations are the fault of a model that is not robust. Alignment with the image and the "
        "linearised distance to the boundary rise with robustness, the norm of the loss gradient falls.",
    ),
)
