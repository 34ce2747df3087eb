"""Reductions: the pictures that translators to larger or coloured pictures are given, made from whole ones."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["reduce_images"]


def reduce_images(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Reduce pictures to a smaller size, by the mean of each block of pixels, or to their largest channel.

    Args:
        images: (B, C, H, W).
        shape: channels, height and width of what is returned; the size divides the images', and the channels are
            theirs or one.

    Returns:
        (B, *shape).
    """
    values = images if shape[0] == images.shape[1] else images.amax(dim=1, keepdim=True)
    blocks = images.shape[2] // shape[1], images.shape[3] // shape[2]
    return values if blocks == (1, 1) else nn.functional.avg_pool2d(values, blocks)
