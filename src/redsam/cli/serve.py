"""`redsam app`: the page on which one clicks an object and watches its mask go."""

from __future__ import annotations

from typing import Annotated

import typer

from redsam.cli import options


def command(
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A model to offer; repeatable; default: the lab models.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default serves this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Attacks that run at once, of all visitors.")] = 1,
    device: options.Device = "auto",
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = False,
) -> None:
    """Serve the app: click an object, attack it, compare defences. Needs redsam[app]."""
    from redsam.app.page import gradio, serve
    from redsam.app.play import Stage
    from redsam.models import lab_names

    gradio()  # a missing extra is said before a model is looked for
    stage = Stage(models=model or lab_names(clicks=True), device=options.device_of(device), jobs=jobs)
    page, address = serve(stage, host=host, port=port, block=False, browser=browser)
    typer.echo(address)
    page.block_thread()
