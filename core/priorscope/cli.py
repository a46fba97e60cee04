"""The command ``priorscope``: finds the apps, passes on, and turns user errors into one line."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from priorscope.errors import InputError
from priorscope.evaluation.processes import process_index_and_count

#: Extra -> modules that come with it, for the message when one is missing.
_MODULES_OF = {
    "depth": {"embreex", "trimesh", "h5py", "av", "OpenEXR"},
    "detection": {"embreex", "trimesh", "shapely"},
    "medical": {"nibabel", "pydicom", "nilearn", "h5py", "hdf5plugin", "pymust", "av"},
    "pose": {"pycocotools", "faster_coco_eval", "embreex", "trimesh", "av"},
    "remote-sensing": {"rasterio", "pyogrio", "shapely", "h5py", "sklearn"},
    "robotics": {"gymnasium", "gym_pusht", "pymunk", "metaworld", "h5py", "zarr", "pyarrow", "av", "shapely"},
    "astro": {"astropy", "galsim", "photutils", "statmorph", "h5py", "pyarrow"},
    "log": {"tensorboard"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``priorscope``; returns the exit status (2: the user can mend it)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    return guarded(lambda: _dispatch(given), debug=debug, app=given[0] if given else "")


def guarded(command: Callable[[], int | None], *, debug: bool = False, app: str = "") -> int:
    """Run a command; print an :class:`InputError` as one line and return 2, unless ``debug``.

    So is a module that is missing and comes with an extra; where several extras bring it, that of ``app`` is named.
    """
    if debug:
        return command() or 0
    try:
        return command() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extras = [extra for extra, modules in _MODULES_OF.items() if module in modules]
        if not extras:
            raise
        extra = app if app in extras else extras[0]
        print(f"error: this needs {error.name}: pip install 'priorscope[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output has gone; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parse_verbs(app: str, verbs: Mapping[str, type[Any]], arguments: Sequence[str], *, summary: str) -> Any:
    """Read ``VERB [options]`` of an app; help and wrong options end the program, as argparse does.

    Parameters
    ----------
    app : str
        Name of the app.
    verbs : mapping of str to dataclass
        What each verb can be told.
    arguments : sequence of str
        What stands after the app's name.
    summary : str
        What the app does, without a capital and a full stop.

    Returns
    -------
    object
        An instance of the chosen verb's dataclass.

    Raises
    ------
    InputError
        For a ``seed`` below 0, which some generators of random numbers take and others do not.
    """
    import tyro

    config = tyro.extras.subcommand_cli_from_dict(
        dict(verbs),
        args=list(arguments),
        prog=f"priorscope {app}",
        description=f"{summary[0].upper()}{summary[1:]}.",
    )
    _refuse_negative_seeds(config)
    return config


def _refuse_negative_seeds(config: Any) -> None:
    """Of options and of their groups."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            _refuse_negative_seeds(value)
        elif field.name == "seed" and value is not None and value < 0:
            raise InputError(f"--seed {value}", remedy="Use 0 or more.")


def run_training(train: Callable[[], Path], *, app: str) -> int:
    """What ``python -m priorscope_APP.train`` does: train, and name the model once, however many processes do so.

    Parameters
    ----------
    train : callable
        Gives the model folder.
    app : str
        Name of the app.

    Returns
    -------
    int
        The exit status.
    """

    def command() -> None:
        model = train()
        if process_index_and_count()[0] == 0:
            print(f"model: {model}")

    return guarded(command, app=app)


def _dispatch(arguments: list[str]) -> int:
    apps = {entry.name: entry for entry in entry_points(group="priorscope.apps")}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(apps))
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version", "version"):
        from priorscope import __version__

        print(__version__)
        return 0
    if name == "models":
        return _models(rest)
    if name not in apps:
        close = difflib.get_close_matches(name, [*apps, "models"], n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Apps: {', '.join(sorted(apps))}."
        raise InputError(f"no app is called {name!r}", remedy=hint)
    return apps[name].load().main(rest) or 0


def _help(apps: dict[str, EntryPoint]) -> str:
    lines = [
        "usage: priorscope APP VERB [options]      priorscope APP --help tells more",
        "",
        "Pretrained diffusion models as instruments for domain scientists.",
        "",
        "apps:",
        *(f"  {name}" for name in sorted(apps)),
        "",
        "also:",
        "  models     published and bundled checkpoints: name, task, licence, size",
        "  version    the version",
        "",
        "options:",
        "  --debug    show a traceback where an error would be one line",
    ]
    return "\n".join(lines)


def _models(arguments: list[str]) -> int:
    from priorscope.backbones.table import published_models

    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: priorscope models [APP]      list published and bundled checkpoints")
        return 0
    rows = published_models()
    if arguments:
        rows = [row for row in rows if row.app == arguments[0]]
        if not rows:
            raise InputError(f"no models of an app called {arguments[0]!r}")
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "app", "predicts", "loader", "licence", "size", "where", "note"):
        table.add_column(title, overflow="fold")
    for row in rows:
        where = "in the package" if row.bundled else row.source
        table.add_row(row.name, row.app, row.task, row.loader, row.licence, row.size, where, row.note)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
