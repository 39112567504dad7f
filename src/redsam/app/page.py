"""The thin layer of Gradio: components, and which verb each of them calls. Needs `redsam[app]`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redsam.app import view
from redsam.app.live import ATTACKS, MAX_EPS, MAX_STEPS
from redsam.app.play import DEFENSES, NONE, Choice, Screen, Stage
from redsam.app.session import MAX_BYTES, Session, Visitors
from redsam.errors import MissingExtra, RedsamError

FIRST = "coffee"  # the photograph that is there from the beginning
SYSTEM = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
HEAD = (
    '<div class="rs-head"><h1>Click something. Watch its mask go.</h1><p>A promptable model finds what you point at. '
    "Then an attack changes each colour of each pixel by a few of 255 levels, until it no longer does.</p></div>"
)
FOOT = (
    '<p class="rs-foot">Uploads and results stay on the machine that serves this page and are deleted. The bundled '
    "models are small stand-ins: what is measured here says nothing about other models.</p>"
)
ACCENT, ACCENT_DARK = "#d6006c", "#ff5aa5"
LOOK = {
    "button_primary_background_fill": ACCENT,
    "button_primary_background_fill_hover": "#b0005a",
    "button_primary_background_fill_dark": ACCENT,
    "slider_color": ACCENT,
    "slider_color_dark": ACCENT_DARK,
    "checkbox_background_color_selected": ACCENT,
    "checkbox_background_color_selected_dark": ACCENT,
    "block_label_text_color": "var(--rs-soft)",
    "background_fill_primary": "var(--rs-paper)",
    "block_background_fill": "var(--rs-paper)",
    "border_color_primary": "var(--rs-hair)",
    "body_background_fill": "var(--rs-paper)",
}
# Nothing is fetched from anywhere but this server, whatever Gradio's own page asks for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


def gradio() -> Any:
    """The package, told not to report home. Raises MissingExtra."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise MissingExtra("gradio", "app", needed_for="The app") from error
    return gradio


def build(stage: Stage, visitors: Visitors) -> Any:
    """The page as gradio.Blocks, not yet served."""
    gr = gradio()
    with gr.Blocks(title="redsam", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(HEAD)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                photo = gr.HTML(
                    view.stage(Session()),
                    js_on_load=view.asset("stage.js"),
                    elem_id="rs-photo",
                    apply_default_css=False,
                )
                strip = gr.HTML(
                    view.strip(), js_on_load=view.asset("stage.js"), elem_id="rs-strip", apply_default_css=False
                )
                upload = gr.UploadButton(
                    "Or upload a photograph", file_types=["image"], size="sm", variant="secondary", elem_id="rs-upload"
                )
            with gr.Column(scale=2, min_width=300):
                written = gr.Textbox(
                    label="Selected (click, drag, or type X,Y or X0,Y0,X1,Y1)", max_lines=1, elem_id="rs-prompt"
                )
                with gr.Row():
                    model = gr.Dropdown(list(stage.models), value=stage.models[0], label="Model", min_width=120)
                    attack = gr.Dropdown(list(ATTACKS), value=ATTACKS[0], label="Attack", min_width=120)
                eps = gr.Slider(1, MAX_EPS, value=8, step=1, label="Budget, of 255 levels")
                steps = gr.Slider(1, MAX_STEPS, value=10, step=1, label="Steps", elem_id="rs-steps")
                defense = gr.Dropdown(list(DEFENSES), value=NONE, label="Defence")
                compare = gr.Checkbox(False, label="Compare with a second defence", elem_id="rs-compare")
                other = gr.Dropdown(list(DEFENSES), value="jpeg:quality=50", label="Second defence", visible=False)
                with gr.Row():
                    go = gr.Button("Attack", variant="primary", elem_id="rs-go", min_width=120)
                    halt = gr.Button("Stop", interactive=False, elem_id="rs-stop", min_width=80)
                line = gr.HTML(view.line(""), elem_id="rs-line")
        lanes = gr.HTML("", elem_id="rs-lanes")
        files = [_files(gr, lane) for lane in ("", " of the second")]
        gr.HTML(FOOT)
        downloads = [button for pair in files for button in pair]
        showing = [photo, written, line]
        screen = [line, lanes, go, halt, *downloads]

        def on(verb: Callable[[Session, Any], None], told: str) -> Callable[[Any, Any], Any]:
            """A handler that does something to the visitor's session and shows the stage again."""

            def handle(given: Any, request: Any) -> tuple[str, str, str]:
                session = visitors.of(str(request.session_hash))
                try:
                    verb(session, given)
                    text = view.line(" ".join(filter(None, (session.note, told))))
                except RedsamError as error:
                    text = view.line(str(error), wrong=True)
                return view.stage(session), session.written, text

            return asking(gr, handle)  # type: ignore[no-any-return]

        chosen = "Click an object, or drag a box around it."
        placed = "Press Attack, or select something else."
        to_photo = on(lambda session, name: session.choose(name), chosen)
        to_place = on(lambda session, where: session.place(where), placed)

        def pick(request: Any, event: Any) -> tuple[str, str, str]:
            return to_photo(str(dict(event._data or {}).get("photo")), request)  # type: ignore[no-any-return]

        def welcome(request: Any) -> tuple[str, str, str]:
            return to_photo(FIRST, request)  # type: ignore[no-any-return]

        def point_at(request: Any, event: Any) -> tuple[str, str, str]:
            return to_place(dict(event._data or {}), request)  # type: ignore[no-any-return]

        def attack_it(
            model: str,
            attack: str,
            eps: float,
            steps: float,
            defense: str,
            compare: bool,
            other: str,
            request: Any,
        ) -> Iterator[Any]:
            session = visitors.of(str(request.session_hash))
            choice = Choice(
                model=model, attack=attack, eps=eps, steps=int(steps), defense=defense, other=other if compare else None
            )
            folder = Path(tempfile.mkdtemp(prefix="redsam-app-"))
            try:
                for now in stage.play(session, choice, folder):
                    yield _updates(gr, now, session)
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # Gradio has its own copy of what is offered

        def stop(request: Any) -> None:
            visitors.of(str(request.session_hash)).stop()

        def leave(request: Any) -> None:
            visitors.forget(str(request.session_hash))

        free: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "undocumented"}
        page.load(asking(gr, welcome), None, showing, **free)
        strip.select(asking(gr, pick), None, showing, **free)
        upload.upload(on(lambda session, path: session.upload(path), chosen), upload, showing, **free)
        photo.select(asking(gr, point_at), None, showing, **free)
        written.submit(on(lambda session, text: session.write(text), placed), written, showing, **free)
        compare.change(lambda wanted: gr.update(visible=wanted), compare, other, **free)
        controls = [model, attack, eps, steps, defense, compare, other]

        go.click(asking(gr, attack_it), controls, screen, **free)
        halt.click(asking(gr, stop), None, None, queue=False, **free)
        page.unload(asking(gr, leave))
    return page


def asking(gr: Any, handler: Any) -> Any:
    """The handler, told in its annotations (where Gradio looks) that it wants who asks, and what happened."""
    kinds = {"request": gr.Request, "event": gr.EventData}
    handler.__annotations__ |= {name: kind for name, kind in kinds.items() if name in handler.__annotations__}
    return handler


def _files(gr: Any, lane: str) -> tuple[Any, Any]:
    with gr.Row():
        png = gr.DownloadButton(f"Image{lane} (PNG)", visible=False, size="sm", min_width=140)
        told = gr.DownloadButton(f"Numbers{lane} (JSON)", visible=False, size="sm", min_width=140)
    return png, told


def _updates(gr: Any, now: Screen, session: Session) -> list[Any]:
    buttons = []
    for lane in range(2):
        pair = now.files[lane] if lane < len(now.files) else None
        paths = (None, None) if pair is None else pair
        buttons += [gr.update(visible=p is not None, value=None if p is None else str(p)) for p in paths]
    return [
        view.line(now.line, wrong=now.wrong, busy=now.running),
        view.lanes(now, session.prompt),
        gr.update(interactive=not now.running),
        gr.update(interactive=now.running),
        *buttons,
    ]


class OnlyHere:
    """ASGI middleware: the policy above on every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, sending)


def serve(
    stage: Stage, *, host: str = "127.0.0.1", port: int | None = None, block: bool = True, browser: bool = False
) -> tuple[Any, str]:
    """Serve the page; returns (blocks, address), at once with block False. Raises MissingExtra, OSError."""
    gr = gradio()
    from starlette.middleware import Middleware

    page = build(stage, Visitors())
    theme = gr.themes.Base(font=SYSTEM, font_mono=MONO, primary_hue="pink", neutral_hue="zinc", radius_size="sm")
    theme = theme.set(**LOOK)
    page.queue(max_size=64, default_concurrency_limit=None)
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, inbrowser=browser,
        max_file_size=MAX_BYTES, theme=theme, css=view.asset("style.css"), footer_links=[], ssr_mode=False,
        enable_monitoring=False, app_kwargs={"middleware": [Middleware(OnlyHere)]},
    )  # fmt: skip
    if block:
        page.block_thread()
    return page, str(address)
