"""The images of the demonstration, drawn from a fake gateway."""

import numpy as np
import pytest
from PIL import Image

from service.catalog import Catalog
from service.cli.demo import demonstrate
from service.workers.memory import MemoryPool
from tests.contract.fake_gateway import FakeGateway, started

CAPTIONS = slice(8, 26)  # rows of pixels above the first row of images


@pytest.mark.parametrize(("is_conditional", "has_captions"), [(True, True), (False, False)])
async def test_only_images_of_a_class_have_a_caption(tmp_path, is_conditional, has_captions):
    gateway, pool = FakeGateway(chunk_count=100), MemoryPool()
    model = gateway.model()
    if not is_conditional:
        model.ClearField("condition")
    gateway.pages = [[model]]
    async with started(gateway) as server:
        (row,) = await demonstrate(server, Catalog(pool), pool, tmp_path)
    with Image.open(row.picture) as picture:
        assert bool((np.asarray(picture)[CAPTIONS] < 255).any()) == has_captions
