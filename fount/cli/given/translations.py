"""`fount translate`, `upscale` and `colourise`: the pictures that a model makes of pictures.

The three send the same call; the last two also check that the model enlarges, or colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import numpy as np
from numpy.typing import NDArray

from fount.cli.classes import parse_label, parse_labels
from fount.cli.given.options import draw_options, encoding_option, model_options, out_option, row_options
from fount.cli.given.work import Results, Work, opened
from fount.cli.options import option, parameter_options
from fount.cli.output.images import paired_sheet, to_pillow, to_uint8, variants_sheet
from fount.cli.output.results import check_grid, check_result_file, write_arrays, write_picture
from fount.cli.output.sample_writers import is_folder
from fount.client.catalog import ModelInfo
from fount.errors import FailedPrecondition, OutputError, output_errors
from fount.sampling.request import ParametersQuery

if TYPE_CHECKING:
    from fount.cli.given.options import GivenOptions

__all__ = ["colourise", "translate", "upscale"]

_FILES = (".png", ".npz")
_MOST_LABELS = 12  # named in a message
_MOST_CHARACTERS = 100  # of the name of a picture's source


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what the three commands take."""
    for add in reversed(
        (
            click.argument("name"),
            row_options(8),
            option("--label", type=parse_label, metavar="LABEL", help="The direction, or the class to become, of all."),
            option("--labels", type=parse_labels, metavar="1,2,3", help="One direction or class per picture."),
            option("--variants", type=click.IntRange(1, 1000), metavar="K", default="1", help="Answers per picture."),
            parameter_options,
            draw_options("pictures that are drawn"),
            encoding_option,
            out_option("A folder for PNG files, a .png with originals and results, or a .npz file.", "PATH"),
            model_options,
        )
    ):
        command = add(command)
    return command


@click.command()
@_options
def translate(name: str, **options: Any) -> None:
    """Make pictures of pictures.

    NAME is a model that translates; `fount model` shows the pictures it takes, and its directions. IMAGES are as in
    `fount encode`. A model that draws gives each picture other answers at other indices: --variants asks for several.

    \b
    Example:
      fount translate mnist-ink-cyclegan scans/ --label to-digit --out digits/
      fount translate mnist-colour grey.png --variants 6 --seed 1 --out coloured.png
    """  # noqa: D301  # \b is click's: keep the lines as they are
    _translate(name, "translated", lambda info: None, **options)


@click.command()
@_options
def upscale(name: str, **options: Any) -> None:
    """Enlarge pictures, by `fount translate` with a model that makes larger ones.

    \b
    Example:
      fount upscale mnist-sr4 small/ --out large/
      fount upscale mnist-sr4 small.png --variants 6 --seed 1 --out guesses.png
    """  # noqa: D301  # \b is click's: keep the lines as they are

    def check(info: ModelInfo) -> None:
        if not all(made > given for made, given in zip(info.sample_shape[:2], info.input_shape[:2], strict=True)):
            _refuse(info, "enlarges no pictures")

    _translate(name, "enlarged", check, **options)


@click.command()
@_options
def colourise(name: str, **options: Any) -> None:
    """Colour grey pictures, by `fount translate` with a model that takes grey and makes colour.

    \b
    Example:
      fount colourise mnist-colour grey/ --out coloured/
      fount colourise mnist-colour grey.png --variants 6 --seed 1 --out coloured.png
    """  # noqa: D301  # \b is click's: keep the lines as they are

    def check(info: ModelInfo) -> None:
        if (info.input_shape[-1], info.sample_shape[-1]) != (1, 3):
            _refuse(info, "colours no grey pictures")

    _translate(name, "coloured", check, **options)


def _refuse(info: ModelInfo, what: str) -> None:
    given, made = (" × ".join(map(str, shape)) for shape in (info.input_shape, info.sample_shape))
    raise FailedPrecondition(
        f"{info.name} {what}: it makes {made} of {given}. Name another model, or use `fount translate`."
    )


def _translate(
    name: str,
    what: str,
    check: Callable[[ModelInfo], None],
    *,
    variants: int,
    seed: int | None,
    encoding: str | None,
    out: str,
    **options: Any,
) -> None:
    parameters = {each: options.pop(each) for each in ParametersQuery.__annotations__}
    path = Path(out) if is_folder(out) else check_result_file(out, *_FILES, or_folder=True)
    with opened(name, cast("GivenOptions", options), "translate") as work:
        check(work.info)
        _check_label(work)
        rows, ids = work.given.values, work.ids(own=False)
        check_grid(path, work.info.name, len(rows) * (1 + variants), is_pictures=work.is_pictures)
        _check_folder(path, work, encoding)
        query = {"seed": seed, "encoding": encoding, **parameters}
        repeated = None if ids is None else np.repeat(ids, variants).tolist()
        given = rows.repeat(variants, axis=0)
        results = work.send(work.client.translate, given, ids=repeated, draws=True, query=query)
        _write(path, work, results, variants)
        text = f"{len(rows):,} {'pictures' if len(rows) > 1 else 'picture'} {what}" + (
            f", {variants} answers each" if variants > 1 else ""
        )
        work.report(results, text, {"rows": len(rows), "variants": variants}, out)


def _check_label(work: Work) -> None:
    if work.info.labels and work.options.get("label") is None and work.options.get("labels") is None:
        known = ", ".join(work.info.labels[:_MOST_LABELS])
        raise click.UsageError(f"{work.info.name} has directions or classes; name one with --label: {known}")


def _check_folder(path: Path, work: Work, encoding: str | None) -> None:
    if path.suffix.lower() in _FILES and not path.is_dir():
        return
    if encoding == "float32" or not work.is_pictures:
        raise OutputError(f"{path} would hold PNG files, which have bytes of 1 or 3 channels: write a .npz file")
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def _write(path: Path, work: Work, results: Results, variants: int) -> None:
    made = results.values
    if path.is_dir():
        for name, image in zip(_file_names(work.given.names, variants), made, strict=True):
            write_picture(path / f"{name}.png", to_pillow(image))
    elif path.suffix.lower() == ".png":
        originals, pictures = _matched(work.given.values, to_uint8(made, results.value_range), results.value_range)
        groups = pictures.reshape(-1, variants, *pictures.shape[1:])  # (N K, H, W, C) -> (N, K, H, W, C)
        names = work.given.names
        sheet = paired_sheet(originals, pictures, names) if variants == 1 else variants_sheet(originals, groups, names)
        write_picture(path, sheet)
    else:
        source = np.arange(len(work.given)).repeat(variants)
        arrays = {"samples": made, "originals": work.given.values, "source": source}
        write_arrays(path, arrays | work.labelled(results))


def _file_names(names: Sequence[str], variants: int) -> list[str]:
    """Name N · K files by their N sources, those of one name by a number each, and their K variants."""
    counts, numbers, found = Counter(names), Counter[str](), list[str]()
    for name in names:
        numbers[name] += 1
        safe = "".join(each if each.isalnum() or each in "-_." else "-" for each in name)[:_MOST_CHARACTERS]
        stem = f"{safe}-{numbers[name]}" if counts[name] > 1 else safe
        found += [stem] if variants == 1 else [f"{stem}-variant{k + 1}" for k in range(variants)]
    return found


def _matched(
    originals: NDArray[Any], made: NDArray[np.uint8], value_range: tuple[float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bring originals and what was made of them to one size, by the nearest pixel, and to as many channels."""
    height, width = (max(each) for each in zip(originals.shape[1:3], made.shape[1:3], strict=True))
    channels = max(originals.shape[3], made.shape[3])
    matched = []
    for images in (to_uint8(originals, value_range), made):
        rows = np.arange(height) * images.shape[1] // height
        columns = np.arange(width) * images.shape[2] // width
        sized = images[:, rows][:, :, columns]
        matched.append(sized if sized.shape[3] == channels else sized[..., :1].repeat(channels, axis=3))
    return matched[0], matched[1]
