"""The least that a typer application can be: what `textclf --help` is compared with."""

import typer

app = typer.Typer()


@app.command()
def one(name: str = "") -> None:
    """Do one thing."""


@app.command()
def other(name: str = "") -> None:
    """Do another thing."""


if __name__ == "__main__":
    app()
