"""`fount augment`: originals beside their variants in one picture, to see what a policy does before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.augmentation.plan_file import load_policy_file
from fount.augmentation.rows import RowBatch
from fount.cli.connection import connected
from fount.cli.options import echo_json, json_option, option, server_option, timeout_option
from fount.cli.output.images import variants_sheet
from fount.cli.output.writer import writing
from fount.cli.picture_files import Pictures, read_pictures
from fount.client.sync import Client
from fount.errors import NotFound, OutputError
from fount.v1 import augmentation_pb2

__all__ = ["augment"]

_ROWS = click.IntRange(1, 100)
_VARIANTS = click.IntRange(1, 50)


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@option("--dataset", metavar="NAME", help="Vary rows of the server's data set; with IMAGES, use its safe policy.")
@option("--rows", type=_ROWS, metavar="N", default="8", help="How many pictures at most.")
@option("--variants", type=_VARIANTS, metavar="K", default="8", help="How many variants of each.")
@option("--policy", metavar="POLICY.yaml", help="How to vary; unset, the data set's safe policy, or a gentle one.")
@option("--seed", type=int, metavar="N", help="Key of what is drawn, 0 to 2^64 - 1; unset, the server draws one.")
@click.option("--out", required=True, envvar="FOUNT_AUGMENT_OUT", show_envvar=True, metavar="FILE.png", help="The picture.")  # fmt: skip  # noqa: E501
@server_option
@timeout_option
@json_option
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
    """Show pictures beside their variants.

    IMAGES are picture files, folders of them, or an NPZ file with `images`; all of one size. POLICY.yaml is a list of
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
        raise click.UsageError("Name pictures, or a data set with --dataset")
    if Path(out).suffix.lower() != ".png":
        raise OutputError(f"{out} is no picture's name: write to a .png file")
    wanted = None if policy is None else load_policy_file(policy)
    pictures = read_pictures(images, rows) if images else None
    with connected(server, timeout_s) as client:
        if pictures is None:
            pictures = _of_dataset(client, dataset or "", rows)
        made, seed = _varied(client, pictures.images, dataset or "", wanted, variants, seed)
    _save(variants_sheet(pictures.images, made, pictures.names), Path(out))
    if as_json:
        echo_json({"pictures": len(made), "variants": variants, "seed": seed, "out": out})
        return
    click.echo(f"{len(made)} pictures, {variants} variants of each\nSeed      {seed}\nWritten   {out}")


def _save(sheet: Image.Image, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            sheet.save(part, "PNG")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _of_dataset(client: Client, name: str, most: int) -> Pictures:
    """The first rows of a plan that takes the data set as it is: a mix of its classes."""
    plan = client.plan({"dataset": name, "seed": 0})
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    with closing(client.pull(plan, provenance="none")) as batches:
        for batch in batches:
            images.append(batch.images[: most - len(names)])
            names += [plan.classes[label] for label in batch.labels[: most - len(names)].tolist()]
            if len(names) == most:
                break
    if not names:
        raise NotFound(f"The data set {name!r} has no rows to vary.")
    return Pictures(images=np.concatenate(images), names=names)


def _varied(
    client: Client,
    images: NDArray[np.uint8],
    dataset: str,
    policy: augmentation_pb2.TransformPolicy | None,
    variants: int,
    seed: int | None,
) -> tuple[NDArray[np.uint8], int]:
    """Ask for variants.

    Returns:
        (N, K, H, W, C) uint8, and the seed they were drawn with.
    """
    batches = list(client.augment(images, dataset=dataset, policy=policy, variants=variants, seed=seed))
    made = np.concatenate([batch.images for batch in batches])
    return made.reshape(len(images), variants, *images.shape[1:]), _seed_of(batches, seed)  # (N K, …) -> (N, K, …)


def _seed_of(batches: Sequence[RowBatch], seed: int | None) -> int:
    return int(batches[0].seeds[0]) if seed is None and batches[0].seeds is not None else seed or 0
