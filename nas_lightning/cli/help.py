"""``--help`` of the subcommands that train and measure: the settings that matter, at once.

The parser knows some hundred settings, and importing it takes seconds; ``--help_all`` shows what it says. The
lines here are written for readers; a test holds keys and defaults against the parser.
"""

from __future__ import annotations

from collections.abc import Sequence

TRAINING = ("fit", "validate", "test", "landscape")
"""The subcommands with this help."""

# Key, value, meaning, default of the parser: "" where the meaning says it.
Setting = tuple[str, str, str, str]

_RUN: tuple[Setting, ...] = (
    ("config", "FILE", "settings from a YAML file; several are read in order, and later ones win", ""),
    ("print_config", "", "print all settings, as a file for --config, and stop", ""),
    ("ckpt_path", "FILE", "checkpoint; `last` is that of the run, which resumes from it", ""),
    ("run", "NAME", "folder of the run (the genotype, and the seed unless 0)", ""),
    ("experiment", "NAME", "folder of related runs (name of the data set)", ""),
    ("seed_everything", "N", "seed of weights, order and augmentation; true: a random one", "0"),
    ("code", "FILE", "file or folder with classes of your own, beside the working folder", ""),
)
_FIT: tuple[Setting, ...] = (
    ("weights", "FILE", "start from these weights: a checkpoint, or a state dict of other code", ""),
    ("extend", "N", "make a finished run N epochs longer, or start anew from its weights", ""),
    ("model.ends", "[A, B]", "train a curve between two networks: --config configs/connectivity.yaml", ""),
)
_LANDSCAPE: tuple[Setting, ...] = (
    (
        "reference_weights",
        "FILE",
        "state dict of other code of the DARTS family, in place of a checkpoint",
        "",
    ),
    ("initial_seeds", "LIST", "without a checkpoint: seeds of the initial weights to measure", ""),
    ("trajectories", "RUN ...", "draw the paths of several runs in one plane", ""),
    ("between", "FILE FILE ...", "measure the straight lines between checkpoints, and their barriers", ""),
)
_MODEL: tuple[Setting, ...] = (
    ("model.genotype", "SPEC", "cells: a name, variant, file or genotype; see `cells list`", "darts_v2"),
    ("model.init_channels", "N", "channels of the first cell's nodes", "36"),
    ("model.num_cells", "N", "number of cells", "20"),
    ("model.stem_stride", "N", "stride of the first convolution; 2 for Tiny-ImageNet", "1"),
    ("model.stem", "NAME", "cifar, or imagenet for images of 224 pixels", "cifar"),
    ("model.drop_path", "P", "largest drop-path probability; 0: off", "0.0"),
    ("model.auxiliary_weight", "W", "weight of the auxiliary tower's loss; 0: no tower", "0.0"),
    ("model.optimizer", "CLASS", "optimiser (SGD); its settings are model.optimizer.lr, .momentum, ...", ""),
    ("model.optimizer.lr", "RATE", "learning rate, also as model.optimizer.init_args.lr", "0.025"),
    ("model.lr_scheduler", "CLASS", "schedule, stepped once an epoch; null: a cosine to 0", ""),
    ("model.operations", "LIST", "modules or files with operations of your own, such as [gated.py]", ""),
    ("model.speed", "LEVEL", "auto, reference, fast, compiled or max", "auto"),
)
_DATA: tuple[Setting, ...] = (
    ("data", "CLASS", "Digits (built in), CIFAR10, CIFAR100, TinyImageNet, FashionMNIST,", ""),
    ("", "", "Synthetic; your images: ImageFolder, HuggingFace (Parquet files),", ""),
    ("", "", "or a class of your own: mine.Mine", ""),
    ("data.root", "FOLDER", "folder of the data sets, or of your images", "data"),
    ("data.batch_size", "N", "images per step over all devices together", "80"),
    ("data.cutout", "N", "side of the square cut out of training images; 0: off", "0"),
    ("data.validation_fraction", "P", "share of the training images held out; 0: the test split", "0.0"),
    ("data.seed", "N", "seed of order and augmentation (seed_everything)", ""),
)
_ANALYSES: tuple[Setting, ...] = (
    ("trainer.callbacks+", "CLASS", "add a callback: LossContour, GradientVariance, HessianSpectrum,", ""),
    ("", "", "LossProfile, LossLine, Interpolation, Trajectory, SpectralDensity,", ""),
    ("", "", "CurvatureMap, BlockCurvature (see docs/landscape.md), EarlyStopping,", ""),
    ("", "", "or one of your own: mine.Greeting", ""),
    ("trainer.callbacks.CLASS.SETTING", "VALUE", "change a callback of the settings, such as", ""),
    ("", "", "--trainer.callbacks.LossContour.resolution 5", ""),
)
_TRAINER: tuple[Setting, ...] = (
    ("trainer.max_epochs", "N", "epochs", "600"),
    ("trainer.gradient_clip_val", "NORM", "gradient norm is clipped at this; null: off", "5.0"),
    ("trainer.accelerator", "NAME", "cpu, gpu or auto", "auto"),
    ("trainer.devices", "N", "devices", "auto"),
    ("trainer.strategy", "NAME", "ddp for several devices", "auto"),
    ("trainer.precision", "NAME", "32-true, bf16-mixed, ...", ""),
    ("trainer.default_root_dir", "FOLDER", "folder of all experiments", "tb_logs"),
    ("trainer.limit_train_batches", "N", "training batches of an epoch, or a share of them", ""),
    ("trainer.enable_progress_bar", "BOOL", "false: no progress bar", ""),
)


def setting_groups(subcommand: str) -> dict[str, tuple[Setting, ...]]:
    """The settings that the help of a subcommand shows, in groups."""
    return {
        "the run": _RUN + {"fit": _FIT, "landscape": _LANDSCAPE}.get(subcommand, _LANDSCAPE[:1]),
        "the network": _MODEL,
        "the data": _DATA,
        "analyses and other callbacks": _ANALYSES,
        "the trainer": _TRAINER,
    }


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether arguments after a subcommand of :data:`TRAINING` ask for this help."""
    return any(argument in ("-h", "--help") for argument in arguments)


def help_text(subcommand: str, description: str) -> str:
    """The help of a subcommand."""
    parts = [
        f"usage: nas-lightning {subcommand} [--config FILE ...] [--KEY VALUE ...]",
        f"{description}.",
    ]
    for title, settings in setting_groups(subcommand).items():
        rows = []
        for key, value, meaning, default in settings:
            option = f"  --{key} {value}".rstrip() if key else ""
            rows.append([option, f"{meaning} ({default})" if default else meaning])
        parts.append(f"{title}:\n{_columns(rows)}")
    parts.append(
        "In parentheses stand the defaults. A setting may stand in a file as well: `model: {num_cells: 8}`.\n"
        "--data.help CLASS and --trainer.callbacks.help CLASS list the settings of one class,\n"
        "--help_all lists all settings, with those of Lightning's trainer."
    )
    return "\n\n".join(parts)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    width = 36
    lines = []
    for option, meaning in rows:
        if len(option) > width - 2:
            lines.append(option)
            option = ""
        lines.append(f"{option:<{width}}{meaning}".rstrip())
    return "\n".join(lines)
