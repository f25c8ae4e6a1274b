"""Owns the report: results, notebooks, pictures and models as one static site that needs no server."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kp2d import __version__, checks, config, files, paths, provenance
from kp2d.report import matches, notebooks, pages
from kp2d.report import tables as layout

if TYPE_CHECKING:
    import jinja2

logger = logging.getLogger(__name__)

SITE = paths.PACKAGE / "report" / "assets"
STATIC = ("style.css", "site.js", "matches.js", "icon.svg")
MARKER = "report.json"  # lists the files of a report: nothing else is ever overwritten
_TOP_K = 1000  # of the real pairs on the first page, as in README.md
_SAMPLE_TOP_K = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A site that was written.

    Attributes:
        folder: Where it lies.
        num_pages: HTML pages.
        num_bytes: Size of all files together.
        seconds: How long it took.
        notes: What is missing in it, and which commands make it.
    """

    folder: Path
    num_pages: int
    num_bytes: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def index(self) -> Path:
        """Returns the first page."""
        return self.folder / "index.html"


def build(profile: str = "fast", folder: str | Path | None = None, *, progress: bool = True) -> Report:
    """Writes the report of a profile. What has not been made yet is named, with the command that makes it.

    Args:
        profile: "smoke", "fast" or "full".
        folder: Where the site goes, a new folder or that of an earlier report; None takes
            `results/runs/<profile>/report`.
        progress: Whether to show progress bars.

    Returns:
        The site that was written.

    Raises:
        InputError: If the profile is unknown, or the folder holds anything but an earlier report.
    """
    chosen = config.profile(profile)
    target = Path(folder or paths.runs(chosen.name) / "report").expanduser().resolve()
    _check_ours(target)
    environment = _environment()  # a missing package shows now, not after the work
    started = time.perf_counter()
    with _replacing(target) as temporary:
        notes = _write_site(temporary, chosen, environment, progress)
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
    folder: Path, profile: config.Profile, environment: jinja2.Environment, progress: bool
) -> list[str]:
    """Writes all files of the site and returns what is missing in it."""
    for name in STATIC:
        shutil.copyfile(SITE / name, folder / name)
    rendered = notebooks.render_pages(folder, profile.name)
    pictures = pages.collect_pictures(folder, profile.name)
    groups = layout.collect(folder, profile.name)
    browser = matches.write_browser(folder, profile, progress=progress)
    site = {
        "profile": profile,
        "notebooks": rendered,
        "pictures": pictures,
        "groups": groups,
        "browser": browser,
        "cards": pages.collect_cards(folder),
        "credits": pages.photograph_credits(),
        "headlines": _headlines(profile.name),
        "version": __version__,
        "commit": provenance.git_commit(),
        "make": f"kp2d reproduce --profile {profile.name}",
    }
    for name in ("index", "matches", "tables", "gallery", "models"):
        _write_page(folder, environment, f"{name}.html", f"{name}.html", site)
    for page in rendered:
        _write_page(folder, environment, "notebook.html", page.file, {**site, "notebook": page})
    missing = [f"{page.title}: {page.note}" for page in rendered if page.note]
    missing += [f"{group.name}: {group.note}" for group in groups if group.note]
    missing += [] if pictures else [f"figures/{profile.name}: no pictures. To make them: {site['make']}"]
    return [*missing, *browser.notes]


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
