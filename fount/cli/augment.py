"""`fount augment`: draw originals next to their variants, to see the effect of a policy before training on it.

Image files, folders of them, an NPZ file or rows of a data set enter; one PNG file leaves. Files are listed and decoded
as those of data sets are, with transparent pixels on white.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from fount.augmentation.augment import AugmentQuery
from fount.augmentation.plan_file import load_policy_file
from fount.cli.connection import connected
from fount.cli.options import PATH, FilePath, option, server_options
from fount.cli.output.images import variants_sheet
from fount.cli.output.paths import check_output_file
from fount.cli.output.text import echo_result
from fount.client.sync import Client
from fount.errors import InvalidRequest, NotFound, OutputError, output_errors
from fount.files import atomic_path
from fount.readers import DataError, Limits
from fount.readers.image_decoder import IMAGE_SUFFIXES, decode_image
from fount.readers.image_folder import list_images
from fount.readers.npz import read_images

__all__ = ["augment"]

_MAX_SIDE = 4096  # pixels, as in the contract
_ARRAYS = ("images", "samples")  # possible names in an NPZ file

_Images = NDArray[np.uint8]  # (N, H, W, 1 or 3)


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
    found = _read_images(images, rows) if images else None
    with connected(server, timeout_s) as client:
        originals, names = found or _pull_images(client, dataset or "", rows)
        query = AugmentQuery(dataset=dataset, policy=message, variants=variants, seed=seed)
        batches = list(client.augment(originals, **query))
    if seed is None and batches[0].seeds is not None:
        seed = int(batches[0].seeds[0])
    count, *shape = originals.shape
    made = np.concatenate([batch.images for batch in batches]).reshape(count, variants, *shape)  # (N K, …) -> (N, K, …)
    with output_errors(Path(out)), atomic_path(Path(out)) as temporary:
        variants_sheet(originals, made, names).save(temporary, "PNG")
    lines = (f"{count} images, {variants} variants of each", f"Seed      {seed or 0}", f"Written   {out}")
    echo_result({"pictures": count, "variants": variants, "seed": seed or 0, "out": out}, lines, as_json=as_json)


def _pull_images(client: Client, dataset: str, limit: int) -> tuple[_Images, list[str]]:
    """Pull rows of a plan of the unchanged data set, which mixes its classes; return them and their classes."""
    plan = client.plan({"dataset": dataset, "seed": 0})
    images: list[_Images] = []
    names: list[str] = []
    with closing(client.pull(plan, provenance="none")) as batches:
        for batch in batches:
            missing = limit - len(names)
            images.append(batch.images[:missing])
            names += [plan.classes[label] for label in batch.labels[:missing].tolist()]
            if len(names) == limit:
                break
    if not names:
        raise NotFound(f"The data set {dataset!r} has no rows to augment.")
    if (channels := images[0].shape[3]) not in (1, 3):
        raise InvalidRequest(f"The data set {dataset!r} has images of {channels} channels; 1 or 3 can be drawn.")
    return np.concatenate(images), names


def _read_images(paths: Sequence[Path], limit: int) -> tuple[_Images, list[str]]:
    """Read the first images of files, folders or an NPZ file; return them and their names."""
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        images = _read_npz(paths[0], limit)
        return images, [str(row) for row in range(len(images))]
    files = list(islice((file for path in paths for file in _image_files(path, limit)), limit))
    found: list[NDArray[np.uint8]] = []
    for file in files:
        found.append(_read_file(file))
        if found[0].shape != found[-1].shape:
            first, other = (" × ".join(map(str, image.shape)) for image in (found[0], found[-1]))
            raise _refused(files[0], f"is {first}, and {file} is {other}; give images of one size")
    return np.stack(found), [file.stem for file in files]


def _image_files(path: Path, limit: int) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    with _reading(path):
        found = list(islice(list_images(path), limit))
    if not found:
        raise NotFound(f"The folder {str(path)!r} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    yield from found


def _read_file(path: Path) -> NDArray[np.uint8]:
    with _reading(path):
        image = decode_image(path, str(path), background="white", max_pixels=Limits().max_pixels)
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE:
        raise _refused(path, f"has {width} × {height} pixels; a side may have at most {_MAX_SIDE}")
    return image


def _read_npz(path: Path, limit: int) -> _Images:
    with _reading(path):
        images = read_images(path, _ARRAYS, limit)
    if images.shape[3] not in (1, 3) or not len(images):
        raise _refused(path, f"holds images of {images.shape}; (N, H, W, 1 or 3) is supported")
    return images


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what readers and numpy raise over a file that is absent or damaged into an error that names it."""
    if not path.exists():
        raise NotFound(f"There is no file {str(path)!r}.")
    try:
        yield
    except DataError as error:
        raise InvalidRequest(f"The images cannot be augmented: {error}.") from error


def _refused(path: Path, text: str) -> InvalidRequest:
    return InvalidRequest("The images cannot be augmented:", fields=[(str(path), text)])
