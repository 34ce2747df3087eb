"""`fount augment`: draw originals next to their variants, to see the effect of a policy before training on it.

Image files, folders of them, an NPZ file or rows of a data set enter; one PNG file leaves.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from fount.augmentation.augment import AugmentQuery
from fount.augmentation.plan_file import load_policy_file
from fount.cli.connection import connected
from fount.cli.options import PATH, FilePath, option, server_options
from fount.cli.output.images import variants_sheet
from fount.cli.output.paths import check_output_file
from fount.cli.output.text import echo_result
from fount.cli.pictures import pull_rows, read_files
from fount.errors import OutputError, output_errors
from fount.files import atomic_path

__all__ = ["augment"]

_ARRAYS = ("images", "samples")  # possible names in an NPZ file


@click.command()
@click.argument("images", nargs=-1, type=PATH)
@option("--dataset", metavar="NAME", help="Augment rows of the server's data set; with IMAGES, use its safe policy.")
@option("--rows", type=click.IntRange(1, 100), metavar="N", default="8", help="The most images.")
@option("--variants", type=click.IntRange(1, 50), metavar="K", default="8", help="Number of variants per image.")
@option(
    "--policy",
    type=PATH,
    metavar="POLICY.yaml",
    help="The transforms; unset, the data set's safe policy, or a gentle one.",
)
@option("--seed", type=int, metavar="N", help="Seed of the transforms, 0 to 2^64 - 1; unset, the server draws one.")
@click.option("--out", required=True, envvar="FOUNT_AUGMENT_OUT", show_envvar=True, metavar="FILE.png", type=FilePath(), help="The image to write.")  # fmt: skip  # noqa: E501
@server_options
def augment(
    images: tuple[Path, ...],
    dataset: str | None,
    rows: int,
    variants: int,
    policy: Path | None,
    seed: int | None,
    out: str,
    server: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Draw images next to their variants.

    IMAGES are image files, folders of them, or an NPZ file with `images`; all of one size. Their transparent pixels are
    drawn on white; a data set of the same files needs `background` in its configuration. POLICY.yaml is a list of
    transforms, as `policy` in a plan file. Transforms fill with black what they move in from outside.

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
    check_output_file(Path(out))
    message = None if policy is None else load_policy_file(policy)
    found = read_files(images, rows, _ARRAYS) if images else None
    with connected(server, timeout_s) as client:
        given = found or pull_rows(client, dataset or "", rows)
        originals = given.values
        query = AugmentQuery(dataset=dataset, policy=message, variants=variants, seed=seed)
        batches = list(client.augment(originals, **query))
    if seed is None and batches[0].seeds is not None:
        seed = int(batches[0].seeds[0])
    count, *shape = originals.shape
    made = np.concatenate([batch.images for batch in batches]).reshape(count, variants, *shape)  # (N K, …) -> (N, K, …)
    with output_errors(Path(out)), atomic_path(Path(out)) as temporary:
        variants_sheet(originals, made, given.names).save(temporary, "PNG")
    lines = (f"{count} images, {variants} variants of each", f"Seed      {seed or 0}", f"Written   {out}")
    echo_result({"pictures": count, "variants": variants, "seed": seed or 0, "out": out}, lines, as_json=as_json)
