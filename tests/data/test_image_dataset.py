import torch
from torch.utils.data import DataLoader

from lit_bottleneck.data.dataset import Examples, keep_batch
from lit_bottleneck.data.image_dataset import FixedDraws, ImageDataset, draw_binary
from lit_bottleneck.data.image_folder import DecodedImages

GREY = torch.full((400, 1, 8, 8), 64, dtype=torch.uint8)
ROWS = torch.arange(400)


def test_batches_that_somebody_keeps_are_not_overwritten_and_neither_is_the_data():
    images = torch.randint(256, (12, 1, 2, 2), dtype=torch.uint8)
    for held, top in ((images, 255), (images / 255, 1)):
        before = held.clone()
        dataset = ImageDataset(Examples.of(held, torch.arange(12)), top, value_range=(-1.0, 1.0))
        kept = [batch[0] for batch in DataLoader(dataset, batch_size=4, collate_fn=keep_batch)]
        torch.testing.assert_close(torch.cat(kept), before / top * 2 - 1)
        assert torch.equal(held, before)


def test_draws_have_their_probability_as_mean():
    probability = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    torch.manual_seed(0)
    draws = draw_binary(probability.expand(20_000, 5))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    deviation = (probability * (1 - probability) / 20_000).sqrt()
    assert ((draws.mean(0) - probability).abs() <= 4 * deviation).all()  # exact at 0 and at 1


def test_fixed_draws_are_black_or_white_with_the_grey_level_as_probability():
    draws = FixedDraws(GREY, max_value=255, seed=0, stream=0)[ROWS]
    assert draws.dtype == torch.uint8
    assert set(draws.unique().tolist()) == {0, 255}
    probability, total = 64 / 255, GREY.numel()
    assert abs((draws == 255).double().mean() - probability) < 4 * (probability * (1 - probability) / total) ** 0.5


def test_black_stays_black_and_white_stays_white():
    levels = torch.tensor([0, 16], dtype=torch.uint8).expand(100, 1, 1, 2)
    assert torch.equal(FixedDraws(levels, max_value=16, seed=0, stream=0)[torch.arange(100)], levels)


def test_a_row_is_drawn_the_same_at_every_visit_in_any_batch():
    draws = FixedDraws(GREY, max_value=255, seed=1, stream=0)
    everything = draws[ROWS]
    assert torch.equal(draws[torch.tensor([7, 3])], everything[[7, 3]])
    assert not torch.equal(everything[7], everything[3])


def test_another_seed_or_stream_gives_other_draws():
    first, other_seed, other_stream = (
        FixedDraws(GREY, 255, seed, stream)[ROWS] for seed, stream in ((0, 0), (1, 0), (0, 1))
    )
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_stream)
    assert not torch.equal(other_seed, other_stream)


def test_the_images_are_not_changed():
    FixedDraws(GREY, max_value=255, seed=0, stream=0)[ROWS]
    assert (GREY == 64).all()


def test_there_are_as_many_rows_as_images():
    assert len(FixedDraws(DecodedImages(["a", "b"], (1, 2, 2), resize=False), 255, seed=0, stream=0)) == 2
