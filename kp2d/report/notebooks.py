"""Owns the report's pages of notebooks: their executed copies as HTML that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kp2d import checks, files, paths
from kp2d.reproduce import chain

logger = logging.getLogger(__name__)

FOLDER = "pictures"
LARGE = 150_000  # bytes of a PNG from which WebP is worth another file format
WEBP_QUALITY = 90
_FENCES = re.compile(r'<mo(?: (?:class|stretchy)="[^"]*")*>([{}|‖])</mo>')
_WITH_COMMA = re.compile(r'<math xmlns="[^"]*">(?:(?!</math>).)*</math>[,.;:)]+', flags=re.DOTALL)
_OVERLINE = re.compile(r'<mover accent="false">(.*?)<mo accent="true">_</mo>\s*</mover>', flags=re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """One notebook of the report."""

    name: str  # file name without suffix, "01_prepare_data"
    title: str  # its first heading, "01 · Prepare the data"
    question: str = ""  # what it asks
    body: str = ""  # the executed notebook as HTML; "" if there is none
    facts: str = ""  # when it has run to its end: how long that took, and at which commit
    note: str = ""  # what is wrong with it or missing, and the command that makes it; "" if nothing

    @property
    def file(self) -> str:
        """Returns the page's file name."""
        return f"{self.name}.html"


def render_pages(folder: Path, profile: str) -> list[Page]:
    """Renders the profile's copies of all notebooks; pictures go to the folder `pictures` of the site."""
    return [_page(folder, stage.name, profile) for stage in chain.STAGES]


def _page(folder: Path, name: str, profile: str) -> Page:
    command = f"kp2d reproduce --profile {profile} --stages {name.partition('_')[0]}"
    copy = paths.runs(profile) / f"{name}.ipynb"
    has_run, record = copy.is_file(), files.read_json(copy.with_suffix(".json"))
    note, facts = "", ""
    if not has_run:
        note = f"This notebook has not been run in the profile {profile}. To run it: {command}"
    elif record is None:
        note = f"This run did not come to its end. To run it again: {command}"
    else:
        facts = f"Ran in {record.get('seconds', 0):.0f} s at commit {record.get('commit', 'unknown')}."
    try:
        content = _read(copy if has_run else paths.notebooks() / copy.name)
        body, untypeset = _html(content, folder, name) if has_run else ("", "")
    except checks.InputError as error:
        note = f"{error} To run it again: {command}" if has_run else note
        return Page(name=name, title=_plain_title(name), note=note)
    title, question = _heading(content)
    title = title or _plain_title(name)
    note = " ".join(filter(None, (note, untypeset)))
    return Page(name=name, title=title, question=question, body=body, facts=facts, note=note)


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat has no common base class for its errors
        raise checks.problem(f"a notebook in {path.name}", f"{type(error).__name__}: {error}") from error


def _heading(content: Any) -> list[str]:
    """Returns title and question of a notebook, "" for what its first cell does not tell."""
    text = content.cells[0].source if content.cells else ""
    found = [re.search(pattern, text, flags=re.M) for pattern in (r"^# (.+)$", r"^\*\*(.+?)\*\*$")]
    return [match[1].strip() if match else "" for match in found]


def _plain_title(name: str) -> str:
    number, _, words = name.partition("_")
    return f"{number} · {words.replace('_', ' ').capitalize()}"


def _html(content: Any, folder: Path, name: str) -> tuple[str, str]:
    """Renders cells with nbconvert's plain template; our own page goes around it.

    Words in a picture's place are the last heading above its cell. Returned is also what is to be said of
    formulas that could not be typeset.
    """
    pictures, words = 0, "Picture made by this cell"
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = _inside_the_site(cell.source)
            headings = [line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")]
            words = f"Picture: {headings[-1]}" if headings else words
        for output in cell.get("outputs", []):
            _keep_still(output)
            if "image/png" in output.get("data", {}):
                pictures += 1
                _move_picture(output, folder, f"{name}_{pictures}", words)
    content.metadata.pop("widgets", None)
    problems: list[str] = []
    body, _ = _exporter(problems).from_notebook_node(content)
    return calm(body), " ".join(dict.fromkeys(problems))


def _exporter(problems: list[str]) -> Any:
    """Returns nbconvert's exporter with typeset formulas in Markdown cells; outputs keep their `$`.

    `problems` takes what is to be said of formulas that cannot be typeset: these stay LaTeX.
    """
    import jinja2
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            if body != body.strip():  # as Pandoc and GitHub have it: in "$5 and $6" there is no formula
                return super().inline_math(body)
            return self.typeset(body, block=False)

        def block_math(self, body: str) -> str:
            shown = self.typeset(body.strip(), block=True)
            return f'<span class="scroll formula" tabindex="0">{shown}</span>'

        def typeset(self, formula: str, *, block: bool) -> str:
            try:
                return mathml(formula, block=block)
            except checks.InputError as error:
                problems.append(str(error))
                return f"<code>{html.escape(formula)}</code>"

    class Exporter(HTMLExporter):
        @jinja2.pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            cell = context.get("cell", {})
            if cell.get("cell_type") != "markdown":
                return super().markdown2html(context, source)
            renderer = Renderer(escape=False, attachments=cell.get("attachments", {}))
            text = MarkdownWithMath(renderer=renderer).render(source)
            return _WITH_COMMA.sub(r'<span class="together">\g<0></span>', text)

    return Exporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)


def mathml(formula: str, *, block: bool = False) -> str:
    """Typesets LaTeX without dollar signs, so that a browser shows it without a script.

    With `block` it stands on a line of its own.

    Raises:
        InputError: If docutils is not installed, or does not understand the formula.
    """
    try:
        from docutils.utils.math.latex2mathml import tex2mathml
    except ModuleNotFoundError as error:
        remedy = "They are shown in LaTeX; to typeset them: pip install docutils"
        raise checks.problem("docutils to typeset formulas", "none installed", remedy) from error
    try:
        text = tex2mathml(formula, as_block=block)
    except Exception as error:  # besides its MathError, docutils lets faults of its parser out
        remedy = "It is shown in LaTeX."
        raise checks.problem("a formula that docutils knows", f"{formula} ({error})", remedy) from error
    text = text.replace("&ApplyFunction;", "\u2061")
    # Lines above and fences are as long as what they hold, not as their row, and know their side.
    text = _OVERLINE.sub(r'<mrow class="overline">\1</mrow>', text)
    sides = {sign: itertools.cycle(("prefix", "postfix")) for sign in "|‖"}
    forms = {"{": itertools.repeat("prefix"), "}": itertools.repeat("postfix"), **sides}
    return _FENCES.sub(
        lambda fence: f'<mo form="{next(forms[fence[1]])}" stretchy="false">{fence[1]}</mo>', text
    )


def _keep_still(output: Any) -> None:
    """Leaves out what only runs in a live notebook: scripts and widgets; their stand-ins are shown."""
    data = output.get("data", {})
    for kind in [kind for kind in data if "javascript" in kind or "widget" in kind]:
        del data[kind]
    if "<script" in "".join(data.get("text/html", "")).lower():
        del data["text/html"]


def _inside_the_site(text: str) -> str:
    """Turns links to notebooks into links to their pages; the README's place has the overview."""
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.html)", text)
    return text.replace("](../README.md)", "](index.html)")


def calm(body: str) -> str:
    """Lets wide tables scroll in a box of their own and pictures load when they come into sight.

    Tables in the HTML have no attributes yet.
    """
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )
    return body.replace("<img ", '<img loading="lazy" ')


def _move_picture(output: Any, folder: Path, name: str, words: str) -> None:
    """Writes an output's picture into the site, and leaves its name and words for nbconvert's template."""
    png = base64.b64decode(output["data"]["image/png"])
    content, suffix = smaller(png)
    file = f"{FOLDER}/{name}{suffix}"
    files.write_bytes(folder / file, content)
    output["data"] = {"image/png": ""}
    output["metadata"] = {"filenames": {"image/png": file}, "image/png": {"alt": words}}


def smaller(png: bytes) -> tuple[bytes, str]:
    """Returns a large PNG as WebP if that is smaller, as photographs are, else as it is; and the suffix."""
    if len(png) < LARGE:
        return png, ".png"
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return png, ".png"
    _, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    return (encoded.tobytes(), ".webp") if encoded.size < len(png) else (png, ".png")
