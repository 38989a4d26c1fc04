"""The losses against their sums over samples and classes, and the identities of the paper's section 3."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from modules.born_again.losses import NO_LABEL, ban, ban_with_labels, cwtm, dkpp, labels_only, permute_but_largest

B, N = 6, 5


def draws(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(B, N, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(N, (B,), generator=generator)


def plain_cross_entropy(target: Tensor, student: Tensor) -> float:
    """-sum_i a_i log q_i, number by number."""
    q = student.double().exp()
    q = q / q.sum()
    return -sum(float(a) * float(b.log()) for a, b in zip(target.double(), q, strict=True))


def test_ban_is_the_cross_entropy_with_the_teacher() -> None:
    student, teacher, label = draws()
    expected = sum(plain_cross_entropy(t.softmax(0), s) for s, t in zip(student, teacher, strict=True)) / B
    assert float(ban(student, teacher, label)) == pytest.approx(expected, rel=1e-6)
    assert torch.equal(ban(student, teacher, label), ban(student, teacher, (label + 1) % N))


def test_ban_with_labels_is_a_sum() -> None:
    student, teacher, label = draws()
    expected = ban(student, teacher, label) + cross_entropy(student, label)
    torch.testing.assert_close(ban_with_labels(student, teacher, label), expected)


def test_cwtm_weights_labels_by_confidence() -> None:
    student, teacher, label = draws()
    weights = [float(t.softmax(0).max()) for t in teacher]
    terms = [w * plain_cross_entropy(torch.eye(N)[y], s) for w, y, s in zip(weights, label, student, strict=True)]
    assert float(cwtm(student, teacher, label)) == pytest.approx(sum(terms) / sum(weights), rel=1e-6)


def test_equal_confidence_is_plain_cross_entropy() -> None:
    student, teacher, label = draws()
    shuffled = torch.stack([teacher[0][torch.randperm(N)] for _ in range(B)])
    torch.testing.assert_close(cwtm(student, shuffled, label), cross_entropy(student, label))


@pytest.mark.parametrize("loss", [ban, dkpp])
def test_a_certain_teacher_is_a_label(loss) -> None:
    student, _, label = draws()
    certain = 1000.0 * torch.eye(N)[label]
    torch.testing.assert_close(loss(student, certain, label), cross_entropy(student, label))


@pytest.mark.parametrize("loss", [ban, ban_with_labels, cwtm, dkpp])
def test_gradient_is_prediction_minus_target(loss) -> None:
    student, teacher, label = draws()
    student.requires_grad_()
    torch.manual_seed(1)
    loss(student, teacher, label).backward()
    q, p, one_hot = student.detach().softmax(1), teacher.softmax(1), torch.eye(N)[label]
    torch.manual_seed(1)
    confidence = p.amax(1, keepdim=True)
    expected = {
        ban: (q - p) / B,
        ban_with_labels: (2 * q - p - one_hot) / B,
        cwtm: confidence / confidence.sum() * (q - one_hot),
        dkpp: (q - permute_but_largest(p)) / B,
    }[loss]
    torch.testing.assert_close(student.grad, expected)


def test_permutation_keeps_the_largest_in_its_place_and_all_values() -> None:
    probabilities = torch.rand(500, 7, generator=torch.Generator().manual_seed(3)).softmax(1)
    torch.manual_seed(0)
    permuted = permute_but_largest(probabilities)
    assert torch.equal(permuted.argmax(1), probabilities.argmax(1))
    assert torch.equal(permuted.amax(1), probabilities.amax(1))
    assert torch.equal(permuted.sort(1).values, probabilities.sort(1).values)
    assert not torch.equal(permuted, probabilities)


def test_permutation_is_uniform_and_drawn_per_sample() -> None:
    row = torch.tensor([0.1, 0.2, 0.4, 0.3])
    torch.manual_seed(0)
    permuted = permute_but_largest(row.expand(24000, 4))
    for place in (0, 1, 3):
        for value in (0.1, 0.2, 0.3):
            share = float((permuted[:, place] == value).float().mean())
            assert share == pytest.approx(1 / 3, abs=0.015)  # five standard deviations


def test_two_classes_have_nothing_to_permute() -> None:
    student, teacher, label = torch.randn(4, 2), torch.randn(4, 2), torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(dkpp(student, teacher, label), ban(student, teacher, label))


@pytest.mark.parametrize("loss", [ban, ban_with_labels, cwtm])
def test_windows_of_a_text_are_samples_and_some_do_not_count(loss) -> None:
    student, teacher, label = draws()
    expected = loss(student[:4], teacher[:4], label[:4])
    label = torch.cat([label[:4], torch.tensor([NO_LABEL, NO_LABEL])])
    shaped = loss(student.view(3, 2, N), teacher.view(3, 2, N), label.view(3, 2))
    torch.testing.assert_close(shaped, expected)
    torch.testing.assert_close(
        labels_only(student.view(3, 2, N), label.view(3, 2)), labels_only(student[:4], label[:4])
    )


@pytest.mark.parametrize("loss", [ban, ban_with_labels, cwtm, dkpp])
def test_half_precision_logits_give_a_full_precision_loss(loss) -> None:
    student, teacher, label = draws()
    assert loss(student.bfloat16(), teacher.bfloat16(), label).dtype == torch.float32


@pytest.mark.parametrize("loss", [ban, ban_with_labels, cwtm, dkpp])
@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_no_loss_makes_a_gpu_wait(loss, shape: tuple[int, ...]) -> None:
    """Fake tensors have no values: whoever looks at one, or picks out rows by a mask, fails."""
    with FakeTensorMode():
        logits = torch.zeros(*shape, N)
        assert loss(logits, logits, torch.zeros(shape, dtype=torch.int64)).shape == ()


def test_the_permutation_of_two_rows_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys sort the places of the others; these take the values in that order."""
    keys = torch.tensor([[0.9, 0.5, 0.7, 0.1], [0.2, 0.8, 0.3, 0.6]])
    monkeypatch.setattr(torch, "rand", lambda *shape, device: keys.clone())
    permuted = permute_but_largest(torch.tensor([[0.1, 0.2, 0.4, 0.3], [0.7, 0.15, 0.05, 0.1]]))
    torch.testing.assert_close(permuted, torch.tensor([[0.3, 0.2, 0.4, 0.1], [0.7, 0.05, 0.1, 0.15]]))
