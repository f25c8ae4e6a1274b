"""Owns the report: results, notebooks, pictures and models as one static site that needs no server."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kp2d import __version__, checks, config, files, paths, provenance
from kp2d.evaluate import tables
from kp2d.report import matches, notebooks, tryit
from kp2d.report import tables as layout
from kp2d.train import cards

if TYPE_CHECKING:
    import jinja2

SITE = paths.PACKAGE / "report" / "assets"
COMMON = ("style.css", "try.css", "site.js", "icon.svg")
STATIC = (*COMMON, "matches.js")
MARKER = "report.json"  # lists the files of a report: nothing else is ever overwritten
_PICTURES = (".png", ".svg")
_METRICS = ("dataset", "subset", "size", "top_k", "num_pairs", *tables.METRICS)
_STAGES = ("recipe", "views", "steps", "pairs", "hours", "batch_size", "learning_rate", "precision", "seed")
_PRECISIONS = {"int8": "int8, trained on its grid", "int8_ptq": "int8, quantized after training"}
_TOP_K = 1000  # of the real pairs on the first page, as in README.md
_SAMPLE_TOP_K = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A site that was written."""

    folder: Path  # where it lies
    num_pages: int  # HTML pages
    num_bytes: int  # size of all files together
    seconds: float  # how long it took
    notes: tuple[str, ...]  # what is missing in it, and which commands make it

    @property
    def index(self) -> Path:
        """Returns the first page."""
        return self.folder / "index.html"


def build(profile: str = "fast", folder: str | Path | None = None, *, progress: bool = True) -> Report:
    """Writes the report of a profile. What has not been made yet is named, with the command that makes it.

    The site goes to a new folder, or that of an earlier report; None takes `results/runs/<profile>/report`.

    Raises:
        InputError: If the profile is unknown, or the folder holds anything but an earlier report.
    """
    chosen = config.profile(profile)
    target = folder or paths.runs(chosen.name) / "report"
    return _build(target, functools.partial(_write_site, profile=chosen, progress=progress), profile)


def build_trial(folder: str | Path) -> Report:
    """Writes the page "Try it" alone, as a site of one page, to a new folder or that of an earlier report.

    Raises:
        InputError: If LiteRT.js cannot be had, or the folder holds anything but an earlier report.
    """
    return _build(folder, _write_trial, "")


def _build(folder: str | Path, write: Callable[..., list[str]], profile: str) -> Report:
    """Lets a function of folder and templates write a site, which then takes the old one's place."""
    target = Path(folder).expanduser().resolve()
    _check_ours(target)
    environment = _environment()  # a missing package shows now, not after the work
    started = time.perf_counter()
    with _replacing(target) as temporary:
        notes = write(temporary, environment)
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        names = [path.relative_to(temporary).as_posix() for path in written]
        files.write_json(temporary / MARKER, {"kp2d": __version__, "profile": profile, "files": names})
    return Report(
        folder=target,
        num_pages=sum("/" not in name and name.endswith(".html") for name in names),
        num_bytes=sum((target / name).stat().st_size for name in names),
        seconds=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _check_ours(folder: Path) -> None:
    """Refuses a folder in which there is anything that no earlier report wrote."""
    if folder.exists() and not folder.is_dir():
        raise checks.problem("a folder for the report", f"the file {folder}", "Choose another with -o.")
    record = files.read_json(folder / MARKER) or {}
    known = {MARKER, *(record.get("files") or ())}
    for path in folder.rglob("*"):
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).as_posix() not in known:
            raise checks.problem(
                "a new or empty folder, or that of an earlier report",
                f"{folder}, which holds {path.relative_to(folder)}",
                "Choose another with -o.",
            )


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yields a new folder that takes the place of another once it is whole; on error nothing changes."""
    files.check_writable(folder.parent / "probe")
    token = secrets.token_hex(4)
    temporary, old = (folder.with_name(f".{folder.name}-{token}{end}") for end in ("", "-old"))
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)


def _write_site(
    folder: Path, environment: jinja2.Environment, *, profile: config.Profile, progress: bool
) -> list[str]:
    """Writes all files of the site and returns what is missing in it."""
    for name in STATIC:
        shutil.copyfile(SITE / name, folder / name)
    rendered = notebooks.render_pages(folder, profile.name)
    pictures = _pictures(folder, profile.name)
    groups = layout.collect(folder, profile.name)
    browser = matches.write_browser(folder, profile, progress=progress)
    trial = tryit.write_trial(folder)
    site = {
        **_shared(f"kp2d report --profile {profile.name}"),
        "profile": profile,
        "notebooks": rendered,
        "pictures": pictures,
        "groups": groups,
        "browser": browser,
        "cards": [_card(folder, path, card) for path, card in cards.read_cards().items()],
        "credits": _told_about_pictures().partition("\n## Photographs\n")[2].strip(),
        "headlines": _headlines(profile.name),
        "trial": trial,
        "make": f"kp2d reproduce --profile {profile.name}",
    }
    for name in ("index", "matches", "try", "tables", "gallery", "models"):
        _write_page(folder, environment, f"{name}.html", f"{name}.html", site)
    for page in rendered:
        _write_page(folder, environment, "notebook.html", page.file, {**site, "notebook": page})
    missing = [f"{page.title}: {page.note}" for page in rendered if page.note]
    missing += [f"{group.name}: {group.note}" for group in groups if group.note]
    missing += [] if pictures else [f"figures/{profile.name}: no pictures. To make them: {site['make']}"]
    missing += [f"Try it: {trial.missing}"] if trial.missing else []
    return [*missing, *browser.notes]


def _write_trial(folder: Path, environment: jinja2.Environment) -> list[str]:
    """Writes the files of a site that is the page "Try it" only."""
    trial = tryit.write_trial(folder)
    if trial.missing:
        raise trial.missing
    for name in COMMON:
        shutil.copyfile(SITE / name, folder / name)
    content = {**_shared("kp2d report --try"), "trial": trial}
    _write_page(folder, environment, "try.html", "index.html", content)
    return []


def _shared(command: str) -> dict[str, Any]:
    """Returns what every page says of itself; a profile makes it part of a larger site."""
    return {
        "command": command,
        "version": __version__,
        "commit": provenance.git_commit(),
        "profile": None,
        "notebooks": (),
    }


def _headlines(profile: str) -> list[dict[str, Any]]:
    """Returns the tables of the first page; one whose results are missing says so."""
    sources = (
        ("bench", lambda: layout.headline(paths.results("bench") / "evaluation.csv", _TOP_K)),
        ("paper", lambda: [("", layout.printed())]),
        ("profile", lambda: layout.headline(paths.results(profile) / "evaluation.csv", _SAMPLE_TOP_K)),
    )
    found = []
    for kind, make in sources:
        try:
            found.append({"kind": kind, "parts": make(), "note": ""})
        except checks.InputError as error:
            found.append({"kind": kind, "parts": [], "note": str(error)})
    return found


def _pictures(folder: Path, profile: str) -> list[dict[str, str]]:
    """Copies a profile's pictures into the site, in the order of the notebooks that make them.

    Returns:
        Of each picture its name, its file in the site, a caption in Markdown, and the number of the notebook
        that makes it, "" if nobody knows.
    """
    told = re.findall(r"^\| \[([^\]]+)\]\([^)]*\) \| (.*?) \| (\d+) \|$", _told_about_pictures(), flags=re.M)
    order = {name: place for place, (name, _, _) in enumerate(told)}
    about = {name: (caption, number) for name, caption, number in told}
    found = [path for path in paths.figures(profile).glob("*") if path.suffix in _PICTURES]
    pictures = []
    for path in sorted(found, key=lambda path: (order.get(path.name, len(order)), path.name)):
        content, suffix = path.read_bytes(), path.suffix
        if suffix == ".png":
            content, suffix = notebooks.smaller(content)
        file = f"figures/{path.stem}{suffix}"
        files.write_bytes(folder / file, content)
        caption, number = about.get(path.name, (path.stem.replace("_", " "), ""))
        pictures.append({"name": path.stem, "file": file, "caption": caption, "notebook": number})
    return pictures


def _told_about_pictures() -> str:
    """Returns the README of the pictures: their captions, and whose photographs they show."""
    try:
        return (paths.home() / "figures" / "README.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def _card(folder: Path, path: Path, card: dict[str, Any]) -> dict[str, Any]:
    """Copies the card of shipped weights into the site and makes it readable.

    Returns:
        The name as for `kp2d.load`, the precision, a heading, facts (name and value), tables of the training
        runs and of what it reaches (None without any), and the card's file in the site.
    """
    target = folder / "cards" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    precision = card.get("precision", "float32")
    return {
        "name": card["name"],
        "precision": precision,
        "heading": _PRECISIONS.get(precision, precision),
        "facts": [(name, value) for name, value in _facts(card).items() if value],
        "stages": _stages(card.get("stages") or []),
        "metrics": _metrics(card.get("metrics") or []),
        "file": f"cards/{path.name}",
    }


def _facts(card: dict[str, Any]) -> dict[str, str]:
    """Returns what a card tells, in words; what it does not tell is empty."""
    return {  # what is short comes first
        "network": card.get("preset", ""),
        "parameters": f"{card['parameters']:,}" if "parameters" in card else "",
        "descriptor": f"{card['descriptor_dim']} values" if "descriptor_dim" in card else "",
        "cell": f"{card['cell']} px" if "cell" in card else "",
        "size": f"{card['bytes'] / 1e6:.2f} MB" if "bytes" in card else "",
        "image": _size(card),
        "training pairs": f"{card['pairs']:,}" if "pairs" in card else "",
        "training steps": f"{card['steps']:,}" if "steps" in card else "",
        "training time": f"{card['hours']:.2f} hours" if "hours" in card else "",
        "machine": card.get("device", ""),
        "commit": card.get("git_commit", ""),
        "learned from": card.get("training_data", ""),
        "ranges chosen by": card.get("calibration", ""),
        "SHA-256": card["sha256"],
        "SHA-256 of the float weights": card.get("float_sha256", ""),
    }


def _stages(stages: list[dict[str, Any]]) -> layout.Table | None:
    if not stages:
        return None
    rows = pd.DataFrame([{name: stage.get(name) for name in _STAGES} for stage in stages])
    rows["views"] = [_size(stage) or "–" for stage in stages]
    rows["learning_rate"] = [f"{rate:g}" if rate else "–" for rate in rows["learning_rate"]]
    return layout.lay_out(rows, name="stages")


def _size(trained: dict[str, Any]) -> str:
    height, width = trained.get("image_size") or (None, None)
    return f"{width}×{height}" if height else ""


def _metrics(metrics: list[dict[str, Any]]) -> layout.Table | None:
    if not metrics:
        return None
    return layout.lay_out(tables.readable(pd.DataFrame(metrics)), columns=_METRICS, name="metrics")


def _environment() -> jinja2.Environment:
    """Returns the templates; they escape everything but what nbconvert makes of our own Markdown."""
    import jinja2
    from nbconvert.filters import markdown2html

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SITE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def inline(text: str) -> str:
        return markdown2html(text).strip().removeprefix("<p>").removesuffix("</p>")

    environment.filters |= {"markdown": markdown2html, "inline_markdown": inline, "boxed": notebooks.calm}
    return environment


def _write_page(
    folder: Path, environment: jinja2.Environment, template: str, file: str, content: dict[str, Any]
) -> None:
    text = environment.get_template(template).render(**content, page=file)
    files.write_text(folder / file, text)
