"""Pooling and projection: values, masks, and independence of padding."""

import pytest
import torch
from torch.testing import assert_close

from polyqwen.models.pooling import (
    AttentionPooling,
    ClsPooling,
    LastTokenPooling,
    MeanPooling,
    masked_softmax,
)
from polyqwen.models.projection import IdentityProjection, ResidualProjection

POOLINGS = [AttentionPooling, MeanPooling, LastTokenPooling, ClsPooling]


def lengths_to_mask(lengths: list[int], longest: int) -> torch.Tensor:
    return torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(pooling: type) -> None:
    pool = pooling(8)
    hidden, mask = torch.randn(3, 5, 8), lengths_to_mask([5, 3, 1], 5)
    longer = torch.cat([hidden, torch.full((3, 4, 8), 1e4)], dim=1)
    long_mask = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    assert_close(pool(longer, long_mask), pool(hidden, mask))
    garbage = hidden.masked_fill(~mask[..., None], -1e4)
    assert_close(pool(garbage, mask), pool(hidden, mask))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_left_padding_too(pooling: type) -> None:
    pool = pooling(8)
    hidden = torch.randn(1, 3, 8)
    padded = torch.cat([torch.randn(1, 2, 8), hidden], dim=1)
    mask = torch.tensor([[False, False, True, True, True]])
    assert_close(pool(padded, mask), pool(hidden, torch.ones(1, 3, dtype=torch.bool)))


def test_attention_pooling_starts_with_normal_queries() -> None:
    queries = AttentionPooling(500, num_queries=40, init_std=0.1).queries.detach()
    assert float(queries.mean()) == pytest.approx(0.0, abs=0.003)
    assert float(queries.std()) == pytest.approx(0.1, rel=0.03)


def test_attention_pooling_by_hand() -> None:
    pool = AttentionPooling(2, num_queries=1)
    with torch.no_grad():
        pool.queries.copy_(torch.tensor([[1.0, 0.0]]))
        pool.output.weight.copy_(torch.eye(2))
    hidden = torch.tensor([[[0.0, 1.0], [torch.log(torch.tensor(3.0)), 5.0], [9.0, 9.0]]])
    out = pool(hidden, torch.tensor([[True, True, False]]))
    expected = 0.25 * hidden[0, 0] + 0.75 * hidden[0, 1]  # softmax of (0, log 3)
    assert_close(out[0], expected)


def test_attention_pooling_matches_a_loop() -> None:
    pool = AttentionPooling(6, num_queries=3, init_std=1.0)
    hidden, lengths = torch.randn(4, 7, 6), [7, 4, 2, 1]
    out = pool(hidden, lengths_to_mask(lengths, 7))
    for row, length in enumerate(lengths):
        heads = []
        for query in pool.queries:
            weights = torch.softmax(hidden[row, :length] @ query, dim=0)
            heads.append((weights[:, None] * hidden[row, :length]).sum(0))
        assert_close(out[row], pool.output(torch.cat(heads)))


def test_attention_pooling_at_zero_is_the_mean() -> None:
    pool = AttentionPooling(6, num_queries=2, init_std=0.0)
    hidden, mask = torch.randn(2, 4, 6), lengths_to_mask([4, 2], 4)
    mean = MeanPooling(6)(hidden, mask)
    assert_close(pool(hidden, mask), pool.output(torch.cat([mean, mean], dim=-1)))


def test_empty_rows_give_zeros_and_finite_gradients() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    weights = masked_softmax(scores, torch.tensor([[True, True, False], [False] * 3]))
    weights.square().sum().backward()
    assert_close(weights.sum(-1), torch.tensor([1.0, 0.0]))
    assert torch.isfinite(scores.grad).all() and scores.grad[0].abs().sum() > 0


def test_last_and_first_token() -> None:
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = lengths_to_mask([3, 2], 3)
    assert_close(LastTokenPooling(2)(hidden, mask), torch.stack([hidden[0, 2], hidden[1, 1]]))
    assert_close(ClsPooling(2)(hidden, mask), hidden[:, 0])


@pytest.mark.parametrize("size", [6, 4])
def test_residual_projection_follows_its_formula(size: int) -> None:
    projection = ResidualProjection(6, size, alpha=0.3)
    c = torch.randn(5, 6)
    p = torch.nn.functional.layer_norm(
        torch.nn.functional.gelu(c @ projection.hidden.weight.T + projection.hidden.bias)
        @ projection.output.weight.T
        + projection.output.bias,
        (size,),
    )
    residual = c if size == 6 else c @ projection.shortcut.weight.T
    assert_close(projection(c), 0.3 * p + 0.7 * residual)
    assert isinstance(projection.shortcut, torch.nn.Identity) == (size == 6)
    projection(c).square().sum().backward()
    assert projection.alpha.grad is not None and projection.alpha.grad != 0


@pytest.mark.parametrize("options", [{}, {"gain": 1.0}, {"gain": 0.5}])
def test_projection_and_pooling_start_by_xavier_with_their_gain(options: dict[str, float]) -> None:
    projection = ResidualProjection(60, 40, **options)
    pooling = AttentionPooling(60, num_queries=2, **options)
    layers = (projection.hidden, projection.output, projection.shortcut, pooling.output)
    for layer in layers:
        bound = options.get("gain", 1.0) * (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None or not layer.bias.any()


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="keeps the width"):
        IdentityProjection(6, 4)
    with pytest.raises(ValueError, match="alpha"):
        ResidualProjection(6, 4, alpha=1.5)
    with pytest.raises(ValueError, match="num_queries"):
        AttentionPooling(6, num_queries=0)
    for make in (lambda: ResidualProjection(6, 4, gain=0.0), lambda: AttentionPooling(6, gain=-1)):
        with pytest.raises(ValueError, match="gain"):
            make()
    assert IdentityProjection(6)(torch.ones(1, 6)).shape == (1, 6)
