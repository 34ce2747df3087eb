"""`fount augment`: draw originals next to their variants, to see the effect of a policy before training on it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from fount.augmentation.augment import AugmentQuery
from fount.augmentation.plan_file import load_policy_file
from fount.cli.connection import connected
from fount.cli.input_images import InputImages, read_images
from fount.cli.options import option, server_options
from fount.cli.output.images import variants_sheet
from fount.cli.output.text import echo_json
from fount.client.sync import Client
from fount.errors import NotFound, OutputError, output_errors
from fount.files import atomic_path

__all__ = ["augment"]

_ROWS = click.IntRange(1, 100)
_VARIANTS = click.IntRange(1, 50)


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@option("--dataset", metavar="NAME", help="Augment rows of the server's data set; with IMAGES, use its safe policy.")
@option("--rows", type=_ROWS, metavar="N", default="8", help="The most images.")
@option("--variants", type=_VARIANTS, metavar="K", default="8", help="Number of variants per image.")
@option("--policy", metavar="POLICY.yaml", help="The transforms; unset, the data set's safe policy, or a gentle one.")
@option("--seed", type=int, metavar="N", help="Seed of the transforms, 0 to 2^64 - 1; unset, the server draws one.")
@click.option("--out", required=True, envvar="FOUNT_AUGMENT_OUT", show_envvar=True, metavar="FILE.png", help="The image to write.")  # fmt: skip  # noqa: E501
@server_options
def augment(
    images: tuple[Path, ...],
    dataset: str | None,
    rows: int,
    variants: int,
    policy: str | None,
    seed: int | None,
    out: str,
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Draw images next to their variants.

    IMAGES are image files, folders of them, or an NPZ file with `images`; all of one size. POLICY.yaml is a list of
    transforms, as `policy` in a plan file.

    \b
    Example:
      fount augment --dataset digits --variants 6 --seed 1 --out variants.png
      fount augment photos/ --policy policy.yaml --out variants.png
    with policy.yaml:
      - {rotate: [0, 15], probability: 0.5}
      - {shift: [0, 0.07]}
    """  # noqa: D301  # \b is click's: keep the lines as they are
    if not images and dataset is None:
        raise click.UsageError("Name images, or a data set with --dataset")
    if Path(out).suffix.lower() != ".png":
        raise OutputError(f"{out} is not a PNG file name: write to a .png file")
    message = None if policy is None else load_policy_file(policy)
    originals = read_images(images, rows) if images else None
    with connected(server, timeout_s) as client:
        if originals is None:
            originals = _images_of_dataset(client, dataset or "", rows)
        query = AugmentQuery(dataset=dataset, policy=message, variants=variants, seed=seed)
        batches = list(client.augment(originals.images, **query))
    if seed is None and batches[0].seeds is not None:
        seed = int(batches[0].seeds[0])
    count, *shape = originals.images.shape
    made = np.concatenate([batch.images for batch in batches]).reshape(count, variants, *shape)  # (N K, …) -> (N, K, …)
    with output_errors(Path(out)), atomic_path(Path(out)) as temporary:
        variants_sheet(originals.images, made, originals.names).save(temporary, "PNG")
    if as_json:
        echo_json({"pictures": count, "variants": variants, "seed": seed or 0, "out": out})
        return
    click.echo(f"{count} images, {variants} variants of each\nSeed      {seed or 0}\nWritten   {out}")


def _images_of_dataset(client: Client, name: str, limit: int) -> InputImages:
    """Pull the first rows of a plan of the unchanged data set, which mixes its classes."""
    plan = client.plan({"dataset": name, "seed": 0})
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    with closing(client.pull(plan, provenance="none")) as batches:
        for batch in batches:
            missing = limit - len(names)
            images.append(batch.images[:missing])
            names += [plan.classes[label] for label in batch.labels[:missing].tolist()]
            if len(names) == limit:
                break
    if not names:
        raise NotFound(f"The data set {name!r} has no rows to augment.")
    return InputImages(images=np.concatenate(images), names=names)
