"""From the signature and the docstring of a verb to its command.

A parameter is a flag. One that is a block of settings (``SamplingConfig``) is a flag for each of them, and ``settings``
of a training a flag for each setting of a recipe, with ``--config``. What a verb reports by (``on_event``)
is no flag.
"""

import inspect
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import NoneType
from typing import Annotated, Any

from cyclopts import App, Parameter

from sightline.cli.flags import BACKBONE, every_setting, nest, setting_flag, setting_value
from sightline.cli.helping import ALL, FIRST_STEPS, FORMATTER, HELP, OFTEN, all_settings, first_sentence
from sightline.cli.verbs import Verb
from sightline.config.building import members
from sightline.config.generating import AnyRecipe
from sightline.config.resolving import field_texts, merge, read_recipe
from sightline.config.settings import Recipe
from sightline.errors import ConfigError, DataError
from sightline.machine.extras import own_version

__all__ = ["application", "called"]

HELP_FLAGS = (HELP, "-h", ALL)
TRAINS_ALL = "train"  # the verb that takes the settings of generators, too
REPORTING = ("on_event", "after_epoch")  # parameters that are no flags
CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        Parameter(help="A YAML file of settings over the recipe, such as the recipe.yaml of a run."),
    ],
)

Setting = tuple[str, Any, str]
"""Dotted name, type and help."""


def application(verbs: Mapping[str, Verb], arguments: list[str], *, whole: bool = False) -> App:
    """Return the parser of the verbs.

    Args:
        verbs: by name.
        arguments: the words of the command line; only the verb that they call is imported.
        whole: import every verb, with all of its flags.
    """
    app = App(
        name="sightline",
        help="A set of images in, a classifier out: fast to train, accurate, explained and safe to hand on.",
        help_epilogue=FIRST_STEPS,
        help_formatter=FORMATTER,
        version=own_version,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # it would end the process before main can say what to do
    )
    name_called = called(verbs, arguments)
    for name, verb in verbs.items():
        group, _, last = name.rpartition(" ")
        if group and group not in app:
            text = f"{group.capitalize()} what a training needs."
            app.command(App(name=group, help=text, help_epilogue="", help_format="plaintext"))
        within = app[group] if group else app
        if whole or name == name_called:
            command, settings = _command(name, verb, everything=whole or ALL in arguments)
            more = all_settings(name, settings) if settings and ALL not in arguments else ""
            within.command(command, name=last, help_epilogue=more, help_flags=HELP_FLAGS)
        else:
            within.command(_named_only(verb), name=last)
    return app


def called(verbs: Mapping[str, Verb], arguments: list[str]) -> str | None:
    """Return the name of the verb that the words of a command line call, if any."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return next((name for name in verbs if words[: name.count(" ") + 1] == name.split()), None)


def _named_only(verb: Verb) -> Callable[[], None]:
    """Return what stands in the list of verbs for one that is not called."""

    def command() -> None: ...

    command.__doc__ = verb.summary
    return command


def _command(name: str, verb: Verb, *, everything: bool) -> tuple[Callable[..., None], int]:
    """Return a function that cyclopts makes a command of: it calls the verb, and shows what it returns.

    Args:
        name: of the verb.
        verb: what it does.
        everything: list every setting in the help, and say all of it.
    Returns:
        The function, and how many settings it takes.
    """
    function = verb.function
    parameters = inspect.signature(function).parameters
    flags = _Flags(name, verb, parameters.values(), everything=everything)

    def call(*positional: Any, **named: Any) -> None:
        arguments = flags.arguments(named)
        words = _with_images(name, positional) if "images" in parameters else positional
        with ExitStack() as stack:
            if "on_event" in parameters:
                from sightline.cli.bars import drawer

                arguments["on_event"] = stack.enter_context(closing(drawer(error=verb.reports_on_error)))
            result = function(*words, **arguments)
        verb.show(result, **dict(zip(parameters, words, strict=False)) | arguments)

    call.__doc__ = _help(function)
    call.__name__ = function.__name__
    call.__signature__ = inspect.Signature([*flags.own, *flags.of_settings])  # type: ignore[attr-defined]
    return call, len(flags.of_settings)


def _help(function: Callable[..., Any]) -> str:
    """Return the first paragraph of a docstring and what it says of the parameters, each in one line."""
    first, *others = (inspect.getdoc(function) or "").replace("``", "`").split("\n\n")
    sections = next((text for text in others if text.startswith("Args:")), "")
    return " ".join(first.split()) + "\n\n" + re.sub(r"\n {8}", " ", sections)


# ── flags ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Flags:
    """The flags of a verb, and what they say."""

    def __init__(self, name: str, verb: Verb, parameters: Iterable[inspect.Parameter], *, everything: bool) -> None:
        self.verb, self.everything = verb, everything
        self.own: list[inspect.Parameter] = []
        self.of_settings: list[inspect.Parameter] = []
        self._blocks: dict[str, type] = {}
        self._settings: dict[str, Setting] = {}
        """By the name of the parameter that stands for it; those with a short name last, since they win."""
        for parameter in parameters:
            block = next(filter(_is_block, members(parameter.annotation)), None)
            if block is not None:
                self._blocks[parameter.name] = block
                self.own += _block_flags(parameter.name, block, verb)
            elif parameter.name == "settings":
                self._add_settings(AnyRecipe if name == TRAINS_ALL else Recipe)
            elif parameter.name not in REPORTING:
                self.own.append(_flag(parameter, verb))

    def _add_settings(self, recipe: Any) -> None:
        every = {setting[0]: setting for setting in [BACKBONE, *every_setting(recipe)]}
        for index, setting in enumerate(every.values()):
            self._settings[f"setting_{index}"] = setting
            dotted, kind, text = setting
            text = text if self.everything else first_sentence(text)
            shown = self.everything or dotted in OFTEN
            self.of_settings.append(setting_flag(f"setting_{index}", dotted, kind, text, shown=shown))
        self.own.append(CONFIG)
        for short, dotted in self.verb.short.items():
            self._settings[short] = every[dotted]
            self.own.append(setting_flag(short, *every[dotted], short=short))

    def arguments(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the verb is called with, from the flags that were named."""
        arguments, typed, blocks = {}, {}, {name: {} for name in self._blocks}  # type: ignore[var-annotated]
        for name, value in named.items():
            block, _, field = name.partition("__")
            if field:
                blocks[block][field] = value
            elif name not in self._settings:
                arguments[name] = value
        for name, setting in self._settings.items():
            if name in named:
                typed[setting[0]] = setting_value(setting, named[name])
        if self._settings:
            arguments |= _layered(arguments.get("recipe", "auto"), arguments.pop("config", None), nest(typed))
        built = {name: _built(name, self._blocks[name], fields, self.verb) for name, fields in blocks.items() if fields}
        return arguments | built


def _is_block(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith("sightline.config")


def _flag(parameter: inspect.Parameter, verb: Verb) -> inspect.Parameter:
    """Return the flag, or the argument, that a parameter of a verb is."""
    kind, how = _typed(parameter.annotation, positional=parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
    if parameter.name == "images":
        return inspect.Parameter(
            "images", parameter.VAR_POSITIONAL, annotation=Annotated[str, Parameter(allow_leading_hyphen=True)]
        )
    default = parameter.empty if parameter.name in verb.required else parameter.default
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
        if default is parameter.empty and NoneType in members(parameter.annotation):  # an image may stand in its place
            default, how["allow_leading_hyphen"] = None, True
        return parameter.replace(
            kind=parameter.POSITIONAL_ONLY, default=default, annotation=Annotated[kind, Parameter(**how)]
        )
    if parameter.name in verb.names:
        how["name"] = f"--{verb.names[parameter.name]}"
    if parameter.default is not True:
        how["negative"] = ()
    return parameter.replace(default=default, annotation=Annotated[kind, Parameter(**how)])


def _typed(annotation: Any, *, positional: bool) -> tuple[Any, dict[str, Any]]:
    """Return the type that a word of the command line is read as, and how; of a path or a mapping, the path."""
    kinds = {typing.get_origin(kind) or kind: kind for kind in members(annotation)}
    if Sequence in kinds and str not in kinds:
        return list[str] | None, {"consume_multiple": True, "show_default": False}
    if os.PathLike in kinds and Mapping not in kinds and not positional:
        return (Path | None if NoneType in kinds else Path), {}
    if str in kinds:
        return (str | None if NoneType in kinds else str), {}
    return annotation, {}


def _block_flags(name: str, block: type, verb: Verb) -> Iterable[inspect.Parameter]:
    """Yield a flag for each setting of a block; the block is made where one of them is named."""
    texts, hints = field_texts(block), typing.get_type_hints(block)
    for field in inspect.signature(block).parameters.values():
        default = field.default
        how = Parameter(
            name=f"--{verb.names.get(f'{name}.{field.name}', field.name.replace('_', '-'))}",
            help=texts[field.name],
            show_default=False if default in (None, field.empty) else str(default),
        )
        yield inspect.Parameter(
            f"{name}__{field.name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[hints[field.name] | None, how],
        )


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _built(name: str, block: type, values: dict[str, Any], verb: Verb) -> Any:
    """Return the block of settings that its flags make."""
    for field in inspect.signature(block).parameters.values():
        if field.default is field.empty and field.name not in values:
            without, flag = (verb.names.get(f"{name}.{one}", one) for one in (next(iter(values)), field.name))
            raise ConfigError(f"--{without} has no effect without --{flag} {field.name.upper()}; name it, too.")
    return block(**values)


def _layered(recipe: str, config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe and what is set over it; a file that is a recipe takes the place of auto."""
    extra = {} if config is None else read_recipe(config)
    if recipe == "auto" and "name" in extra:  # a recipe by itself, such as a run's
        return {"recipe": str(config), "settings": flags}
    return {"recipe": recipe, "settings": merge(extra, flags)}


def _with_images(verb: str, words: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """Return the run and the images that were named; of predict the run may be left out.

    Raises:
        ConfigError: a word is an option that there is not; the parser took it for an image, since one may be "-".
        DataError: images were wanted.
        RunError: the run is not named first.
    """
    for word in words:
        if word.startswith("-") and word != "-" and not os.path.lexists(word):
            raise ConfigError(f"Unknown option: {word.partition('=')[0]}; --help lists those that there are.")
    run, images = (words[0], list(words[1:])) if words else (None, [])
    if verb != "predict":
        return run, images
    from sightline.data.sources.unlabeled import names_images
    from sightline.runs.naming import names_a_run, refuse_as_image

    if run is not None and names_images(run) and not names_a_run(run):
        run, images = None, list(words)  # images stand in its place
    if run is not None and not images and not os.path.exists(run):
        raise DataError(f"no run, image, folder or archive at {run!r}; check the spelling of the path.")
    if run is None and (named := next(filter(names_a_run, images), None)):
        refuse_as_image(named)
    return run, images
