from dataclasses import replace

import pytest
import torch

from lightning_recipes.datamodules.augmentation import PRESETS, Augmentation, preset
from lightning_recipes.datamodules.batches import BatchPlan, DecodingLoader, MemoryLoader
from lightning_recipes.datamodules.image_folder import find_images
from lightning_recipes.datamodules.samples import ArrayReader, FileReader, Samples
from lightning_recipes.preprocessing import Normalization, Preprocessing

PREPROCESSING = Preprocessing(1, 16, 0.9, Normalization((0.3,), (0.4,)))


def indices(plan, epoch=0):
    plan.set_epoch(epoch)
    return [batch.tolist() for batch, _, _ in plan]


@pytest.mark.parametrize("size", [1, 5, 7, 8, 9, 16, 17, 31])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_each_sample_once_in_as_many_batches_on_every_rank(size, world):
    shards = [
        indices(BatchPlan(size, 4, shuffle=False, world_size=world, rank=rank)) for rank in range(world)
    ]
    assert sorted(i for shard in shards for batch in shard for i in batch) == list(range(size))
    assert len({len(shard) for shard in shards}) == 1
    assert all(len(shard) == len(BatchPlan(size, 4, shuffle=False, world_size=world)) for shard in shards)
    if size >= world:
        assert all(batch for shard in shards for batch in shard)


@pytest.mark.parametrize("size", [8, 9, 16, 31])
@pytest.mark.parametrize("world", [1, 2])
def test_training_gives_every_rank_whole_batches_without_repeats(size, world):
    shards = [indices(BatchPlan(size, 4, shuffle=True, world_size=world, rank=rank)) for rank in range(world)]
    seen = [i for shard in shards for batch in shard for i in batch]
    assert len(seen) == len(set(seen)) == size // (4 * world) * 4 * world
    assert {len(batch) for shard in shards for batch in shard} == {4}


def test_fewer_samples_than_a_batch_still_train():
    (batch,) = indices(BatchPlan(3, 4, shuffle=True))
    assert sorted(batch) == [0, 1, 2]


def test_the_order_is_a_function_of_seed_and_epoch():
    assert indices(BatchPlan(50, 8, shuffle=True, seed=1), 3) == indices(
        BatchPlan(50, 8, shuffle=True, seed=1), 3
    )
    orders = [
        str(indices(BatchPlan(50, 8, shuffle=True, seed=seed), epoch))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_the_draws_differ_by_epoch_batch_and_rank():
    plans = [BatchPlan(64, 4, shuffle=True, world_size=2, rank=rank) for rank in range(2)]
    seeds = []
    for epoch in range(3):
        for plan in plans:
            plan.set_epoch(epoch)
            seeds += [seed for _, seed, _ in plan]
    assert len(seeds) == len(set(seeds)) == 3 * 2 * 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_position_gets_every_sample():
    # 2,000 epochs of 5 samples: the first place is uniform; chi-square with 4 degrees, p = 1e-4 at 23.5
    plan = BatchPlan(5, 5, shuffle=True, seed=0)
    counts = torch.bincount(torch.tensor([indices(plan, epoch)[0][0] for epoch in range(2000)]), minlength=5)
    assert ((counts - 400.0) ** 2 / 400).sum() < 23.5


def test_weights_balance_the_classes():
    targets = torch.tensor([0] * 90 + [1] * 10)
    weights = 1.0 / targets.bincount()[targets]
    plan = BatchPlan(100, 10, shuffle=True, weights=weights)
    drawn = torch.tensor([targets[i] for epoch in range(50) for batch in indices(plan, epoch) for i in batch])
    assert float(drawn.float().mean()) == pytest.approx(0.5, abs=0.03)  # 5,000 draws: σ = 0.007


@pytest.fixture
def samples(digits):
    return Samples(digits[0][:, None], digits[1], ArrayReader(1))


def plan(size, **options):
    return BatchPlan(size, 7, **{"shuffle": False, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_the_fast_path_equals_the_ordinary_path_sample_for_sample(samples, workers):
    tensor = samples.load(16, 0.9)
    fast = MemoryLoader(tensor, samples.targets, plan(30), PREPROCESSING)
    ordinary = DecodingLoader(samples, plan(30), PREPROCESSING, num_workers=workers)
    pairs = list(zip(fast, ordinary, strict=True))
    assert sum(len(a[0]) for a, _ in pairs) == 30
    for (images, targets), (other_images, other_targets) in pairs:
        assert torch.equal(images, other_images)
        assert torch.equal(targets, other_targets)


def test_files_equal_arrays(samples, folder):
    paths = sorted(find_images(folder), key=lambda path: path.name)
    files = Samples(paths, samples.targets, FileReader(1))
    assert torch.equal(files.load(16, 1.0), samples.load(16, 1.0))
    ordinary = DecodingLoader(files, plan(30), PREPROCESSING)
    fast = MemoryLoader(samples.load(16, 0.9), samples.targets, plan(30), PREPROCESSING)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(fast, ordinary, strict=True))


@pytest.mark.parametrize("name", PRESETS)
def test_augmented_batches_do_not_depend_on_workers_or_other_draws(samples, name):
    def epoch(workers, noise):
        torch.manual_seed(noise)
        train = plan(30, shuffle=True, seed=3)
        loader = DecodingLoader(
            samples, train, PREPROCESSING, preset(name, horizontal_flip=True), num_workers=workers
        )
        return torch.cat([images for images, _ in loader])

    state = torch.get_rng_state()
    alone = epoch(0, 1)
    assert torch.equal(alone, epoch(2, 99))
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    epoch(0, 1)
    assert torch.equal(torch.get_rng_state(), expected)  # and they leave torch's generator as it was
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", ["light", "standard", "strong"])
def test_the_fast_path_draws_anew_for_each_sample_and_epoch(samples, name):
    tensor = samples.load(16, 1.0)[:1].expand(28, -1, -1, -1).contiguous()  # the same image everywhere
    loader = MemoryLoader(
        tensor,
        samples.targets[:28],
        plan(28, shuffle=True),
        PREPROCESSING,
        preset(name, horizontal_flip=True),
    )
    state = torch.get_rng_state()
    images = torch.cat([images for images, _ in loader]).flatten(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(images.unique(dim=0)) > 14  # of 28; `light` knows 50 shifts and flips, and some coincide
    again = torch.cat([images for images, _ in loader]).flatten(1)
    assert torch.equal(images, again)
    loader.sampler.set_epoch(1)
    assert not torch.equal(images, torch.cat([images for images, _ in loader]).flatten(1))


ALIKE = {
    "light": PRESETS["light"],
    "standard": PRESETS["standard"],
    # A crop that is turned shows black corners on the ordinary path, what lies beyond it on the fast one.
    "strong but for the crop": replace(PRESETS["strong"], crop_scale=1.0),
    "translate": Augmentation(translate=0.2),
    "translate, turned": Augmentation(translate=0.1, rotation=30),
    "short side": Augmentation(short_side=(256 / 224, 480 / 224)),
    "elastic": Augmentation(elastic=(25.0, 2.0)),
}


@pytest.mark.parametrize("name", ALIKE)
def test_both_paths_augment_alike(name):
    # One sharp picture, many draws: the mean image and the spread about it agree between the two paths.
    torch.manual_seed(0)
    picture = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    picture[..., 8:24, 6:14] = 230
    picture[..., 20:24, 6:26] = 120
    many = 1500
    targets = torch.zeros(many, dtype=torch.int64)
    samples = Samples(picture.expand(many, -1, -1, -1), targets, ArrayReader(1))
    train = BatchPlan(many, many, shuffle=True)
    unit = Preprocessing(1, 32, 1.0, Normalization.none(1))
    augmentation = replace(ALIKE[name], flip=True)
    fast, _ = next(iter(MemoryLoader(samples.load(32, 1.0), targets, train, unit, augmentation)))
    ordinary, _ = next(iter(DecodingLoader(samples, train, unit, augmentation)))
    spread = (fast.var(0) + ordinary.var(0)) / many
    z = (fast.mean(0) - ordinary.mean(0)).abs() / (spread.sqrt() + 5e-3)  # 5e-3: a grey level of resampling
    assert float(z.max()) < 3
    assert float((fast.std(0) - ordinary.std(0)).abs().mean()) < 0.008


@pytest.mark.parametrize("seen", [0, 1, 3, 4])
def test_a_loader_goes_on_after_the_batches_that_were_given(seen):
    def loader():
        images = torch.arange(16, dtype=torch.uint8).view(16, 1, 1, 1).expand(16, 1, 16, 16).contiguous()
        plan = BatchPlan(16, 4, shuffle=True, seed=2)
        plan.set_epoch(3)
        return MemoryLoader(
            images, torch.arange(16), plan, PREPROCESSING, preset("light", horizontal_flip=True)
        )

    first, second = loader(), loader()
    whole = list(first)
    iterator = iter(second)
    for _ in range(seen):
        next(iterator)
    resumed = loader()
    resumed.load_state_dict(second.state_dict())
    rest = list(resumed)
    torch.testing.assert_close(rest, whole[seen % 4 :], rtol=0, atol=0)  # after the last, the epoch again
    assert len(list(resumed)) == 4


def test_a_state_of_another_epoch_is_none_of_this_one():
    plan = BatchPlan(8, 4, shuffle=True)
    resumed = MemoryLoader(torch.zeros(8, 1, 16, 16, dtype=torch.uint8), torch.arange(8), plan, PREPROCESSING)
    resumed.load_state_dict({"epoch": 4, "batch": 1})
    assert len(list(resumed)) == 2


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_loader_of_the_same_images_can_have_another_plan(in_memory):
    images = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 1, 16, 16).contiguous()
    targets, plan = torch.arange(12), BatchPlan(12, 5, shuffle=False)
    if in_memory:
        loader = MemoryLoader(images, targets, plan, PREPROCESSING)
    else:
        loader = DecodingLoader(Samples(images, targets, ArrayReader(1)), plan, PREPROCESSING)
    first = iter(loader)
    assert next(first)[1].tolist() == [0, 1, 2, 3, 4]
    other = BatchPlan(12, 4, shuffle=True, seed=3)
    found = [y.tolist() for _, y in loader.independent(other)]
    assert found == indices(BatchPlan(12, 4, shuffle=True, seed=3))
    assert [y.tolist() for _, y in first] == [[5, 6, 7, 8, 9], [10, 11]]
    assert loader.sampler is plan
    assert [len(y) for _, y in loader.independent()] == [5, 5, 2]
