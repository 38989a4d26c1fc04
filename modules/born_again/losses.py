"""What a student learns from its teacher (section 3 of the paper). Temperature is 1; all results are batch means.

Letters: B samples, n classes. Logits [..., n] may have any number of leading dimensions, labels [...] go with them; a
sample is a position of these. Labels of -100, at the end of a text, stand for no sample at all. The teacher's logits
carry no gradient.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

NO_LABEL = -100


def as_samples(student: Tensor, teacher: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[B, n], [B, n] and [B], in float32."""
    return student.flatten(0, -2).float(), teacher.flatten(0, -2).float(), label.flatten()


def per_sample(student: Tensor, target: Tensor) -> Tensor:
    """Cross-entropies [B] of labels [B] or of distributions [B, n]."""
    return cross_entropy(student, target, reduction="none")


def mean_of_samples(values: Tensor, label: Tensor) -> Tensor:
    """Mean of the values [B] whose label counts. To pick these out would make a GPU wait."""
    counts = label != NO_LABEL
    return values.where(counts, 0.0).sum() / counts.sum()


def labels_only(student: Tensor, label: Tensor) -> Tensor:
    """The loss of the first generation, which has no teacher."""
    return cross_entropy(student.flatten(0, -2).float(), label.flatten(), ignore_index=NO_LABEL)


def ban(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy with the teacher's distribution; the labels are not used."""
    student, teacher, label = as_samples(student, teacher, label)
    return mean_of_samples(per_sample(student, teacher.softmax(1)), label)


def ban_with_labels(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """BAN+L: the sum, not the mean, of the cross-entropies with label and teacher.

    The paper prints no weights; with this one the gradient is twice as large as that of either term.
    """
    student, teacher, label = as_samples(student, teacher, label)
    return mean_of_samples(per_sample(student, label) + per_sample(student, teacher.softmax(1)), label)


def cwtm(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Confidence weighted by teacher maximum: labels, each weighted by the teacher's largest probability.

    The weights sum to 1 over the batch (of one rank), and count where the teacher is wrong too.
    """
    student, teacher, label = as_samples(student, teacher, label)
    confidence = teacher.softmax(1).amax(1).where(label != NO_LABEL, 0.0)
    return (confidence / confidence.sum() * per_sample(student, label)).sum()


def permute_but_largest(probabilities: Tensor) -> Tensor:
    """[B, n] with all entries of a row but its largest in a random order, drawn for each row."""
    rows, classes = probabilities.shape
    largest = probabilities.argmax(1, keepdim=True)
    keys = torch.rand(rows, classes, device=probabilities.device)
    keys.scatter_(1, largest, -1.0)  # the largest sorts to the front, the others into a random order behind it
    shuffled = keys.argsort(1)
    others = torch.arange(classes - 1, device=probabilities.device).expand(rows, -1)
    others = others + (others >= largest)  # all places but that of the largest
    source = torch.empty_like(shuffled).scatter_(1, torch.cat([largest, others], 1), shuffled)
    return probabilities.gather(1, source)


def dkpp(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Dark knowledge with permuted predictions: all but the teacher's largest probability change places at random.

    Around the teacher's class, not the label. The paper does not say how often the permutation is drawn; here it is
    for every sample and step, from torch's global random numbers.
    """
    student, teacher, label = as_samples(student, teacher, label)
    return mean_of_samples(per_sample(student, permute_but_largest(teacher.softmax(1))), label)
