"""How well scores tell MNIST's test rows from other pictures: the area under the ROC curve of each score and set.

Run it beside a gateway that serves the models:

    fount serve --archives build/archives
    python -m benchmarks.out_of_distribution --data ~/mnist --out benchmarks/results/out_of_distribution.md

A score of 1 tells every test row from every other picture by its higher score, 0.5 is chance, and less than 0.5 means
that the other pictures score higher: likelihoods prefer simple pictures.

Sources: Nalisnick et al., "Do deep generative models know what they don't know?", 2019; Ren et al., "Likelihood ratios
for out-of-distribution detection", 2019; Serrà et al., "Input complexity and out-of-distribution detection with
likelihood-based generative models", 2020; Hanley and McNeil 1982 (the interval).
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount import Client
from fount.address import Addresses, Stream
from fount.readers import DatasetSource, read_dataset

__all__ = ["main"]

Images = NDArray[np.uint8]
_SIDE, _SEED = 28, 20265
_SAMPLES = 20  # importance samples
_MODEL, _BACKGROUND, _EXACT = "mnist-vae", "mnist-background", "mnist-gmm"


def other_sets(test: Images, digits: Images) -> dict[str, Images]:
    """Make the sets that are compared with test rows, (N, 28, 28, 1) uint8 each.

    Args:
        test: (N, 28, 28, 1), rows of MNIST that are not scored as such.
        digits: (M, 8, 8, 1), scikit-learn's digits.
    """
    count = len(test)
    addresses = Addresses.of_range(_SEED, 0, count)
    order = Addresses.of_range(_SEED, count, 1).uniforms(Stream.LATENT, _SIDE * _SIDE)[0].argsort(kind="stable")
    noise = (addresses.uniforms(Stream.LATENT, _SIDE * _SIDE) * 256).astype(np.uint8)
    dots = np.zeros_like(test)
    for row, (y, x) in enumerate((addresses.uniforms(Stream.TRANSFORM, 2) * (_SIDE - 3)).astype(int)):
        dots[row, y : y + 3, x : x + 3] = 255
    enlarged = np.kron(digits[:count, :, :, 0], np.ones((1, 3, 3), np.uint8))  # (M, 8, 8) -> (M, 24, 24)
    return {
        "inverted": 255 - test,
        "shuffled pixels": test.reshape(count, -1)[:, order].reshape(test.shape),
        "noise": noise.reshape(test.shape),
        "digits, enlarged": np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))[..., None],
        "black": np.zeros_like(test),
        "one dot": dots,
    }


def rows_of(source: DatasetSource, split: str, count: int) -> Images:
    """Read the first rows of a split, (N, H, W, C)."""
    read = read_dataset(source).splits[split]
    return read.images(np.arange(min(count, len(read))))


def png_nats(images: Images) -> NDArray[np.float64]:
    """Compute the size of each picture as a PNG file, in nats, (N,)."""
    sizes = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0]).save(file, format="PNG", optimize=True)
        sizes.append(len(file.getvalue()))
    return np.array(sizes) * 8 * math.log(2)


def area(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> tuple[float, float]:
    """Compute P(inside > outside) + P(equal) / 2, and half the width of its 95 % interval.

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic curve", 1982.
    """
    order = np.sort(outside)
    below, up_to = np.searchsorted(order, inside, "left"), np.searchsorted(order, inside, "right")
    value = float(((below + up_to) / 2).mean() / len(outside))
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    m, n = len(inside), len(outside)
    variance = (value * (1 - value) + (m - 1) * (q1 - value**2) + (n - 1) * (q2 - value**2)) / (m * n)
    return value, 1.96 * math.sqrt(max(0.0, variance))


def scores_of(client: Client, images: Images) -> dict[str, NDArray[np.float64]]:
    """Score pictures in every way, (N,) each."""

    def column(model: str, name: str, importance_samples: int | None = None) -> NDArray[np.float64]:
        scores = client.score(model, images, seed=_SEED, importance_samples=importance_samples)
        return np.asarray(scores[name], np.float64)

    bound = column(_MODEL, "iwae", importance_samples=_SAMPLES)
    return {
        f"`{_MODEL}` bound": bound,
        f"`{_EXACT}` density": column(_EXACT, "log-density"),
        f"bound less `{_BACKGROUND}`": bound - column(_BACKGROUND, "iwae", importance_samples=_SAMPLES),
        "bound plus complexity": bound + png_nats(images),
    }


@click.command()
@click.option("--server", default="127.0.0.1:50051", show_default=True, help="Address of the gateway.")
@click.option("--data", type=Path, required=True, help="Folder with MNIST's four files.")
@click.option("--rows", default=1000, show_default=True, help="Rows of each set.")
@click.option("--out", type=Path, help="Markdown file to write; the table is printed in any case.")
def main(server: str, data: Path, rows: int, out: Path | None) -> None:
    """Compare scores of MNIST's test rows with those of other pictures."""
    test = rows_of(DatasetSource(name="mnist", path=data), "test", 2 * rows)
    digits = rows_of(DatasetSource(name="digits"), "train", rows)
    with Client(server) as client:
        inside = scores_of(client, test[:rows])
        found = {name: scores_of(client, images) for name, images in other_sets(test[rows:], digits).items()}
    lines = [
        f"{rows} test rows of MNIST against {rows} pictures of each set; {_SAMPLES} importance samples.",
        "",
        "| score | " + " | ".join(found) + " |",
        "|---" * (1 + len(found)) + "|",
    ]
    for score, values in inside.items():
        cells = ("{:.3f} ± {:.3f}".format(*area(values, others[score])) for others in found.values())
        lines.append(f"| {score} | " + " | ".join(cells) + " |")
    means = ["mean " + score for score in inside]
    lines += ["", "| | test | " + " | ".join(found) + " |", "|---" * (2 + len(found)) + "|"]
    for mean, score in zip(means, inside, strict=True):
        cells = (f"{values[score].mean():.0f}" for values in (inside, *found.values()))
        lines.append(f"| {mean} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
