"""The group of all commands: errors as a sentence and an exit code, global options before or after a command."""

from __future__ import annotations

from typing import Any

import click

from semtel_batch import interrupts
from semtel_batch.errors import Exit, Incomplete, SemtelError
from semtel_batch.logs import log_line


def _remember(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """A global option given after the command counts like one given before it."""
    if ctx.obj is not None and value not in (None, False):
        ctx.obj[option.name] = value


def accept_globals_everywhere(group: click.Group) -> None:
    """Let every command take the group's options too."""
    for command in group.commands.values():
        for option in group.params:
            if isinstance(option, click.Option) and option.name != "version":
                again = click.Option(
                    [*option.opts, option.name or ""],
                    type=option.type,
                    is_flag=option.is_flag,
                    expose_value=False,
                    hidden=True,
                    callback=_remember,
                )
                command.params.append(again)


class PoliteGroup(click.Group):
    """Turns our errors into a sentence and an exit code; a user never sees a traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if args or extra.get("args") is not None:  # called from Python: signals are the caller's
            return super().main(*args, **extra)
        with interrupts.heard():
            return super().main(**extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SemtelError as error:
            interrupts.end()
            # Work that is still owed is no error: a script that polls should not be alarmed.
            word = "incomplete" if isinstance(error, Incomplete) else "error"
            _say(ctx, word, str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            interrupts.end()
            _say(ctx, "stopped", "nothing is lost: run the same command again to go on.")
            ctx.exit(Exit.INCOMPLETE)
        except BrokenPipeError:
            ctx.exit(Exit.DONE)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            _say(ctx, "error", f"{what}; nothing that was paid for is lost, mend it and run again.")
            ctx.exit(Exit.FAILED)


def _say(ctx: click.Context, word: str, text: str) -> None:
    if (ctx.obj or {}).get("log_json"):
        click.echo(log_line("error" if word == "error" else "warning", "semtel_batch", f"{word}: {text}"), err=True)
    else:
        click.echo(f"{word}: {_one_line(text)}", err=True)


def _one_line(text: str) -> str:
    """Errors may quote the user's data or a provider's words: no escape codes, no line breaks."""
    return "".join(c if c.isprintable() else " " for c in text)
