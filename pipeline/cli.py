"""The command line: its commands together, and what becomes of their errors and exit status.

Nothing heavy is imported here, so that help answers at once; each command imports its stage.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import click

from rarevox.pipeline.commands import data, evaluation, review, runs, scores, studies, system
from rarevox.pipeline.cores import share_threads
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.files import leaving_no_empty_folders
from rarevox.pipeline.shortage import is_out_of_memory
from rarevox.pipeline.starting import leaving_at_once, name_the_user
from rarevox.pipeline.words import one_line, visible

WORDED = (RequestError, OSError, FloatingPointError, KeyboardInterrupt)
"""Errors that are told in a line; so is lack of memory."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="rarevox")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Segment structures that fill a thousandth of a scan: prepare, train, evaluate, predict.

    Exit status: 0 all done; 1 some cases failed, the rest done and listed; 2 the request is wrong; 130 interrupted
    (training that SIGTERM ended: 143).
    """
    from rarevox.pipeline.logs import show_logs_visibly

    show_logs_visibly()
    context.obj = {"debug": debug}


for command in (
    *(data.download, data.prepare),
    *(runs.demo, runs.train, runs.predict, runs.collect, runs.serve, runs.export, runs.verify),
    *(evaluation.evaluate, evaluation.tune_threshold, evaluation.tune_post_processing, evaluation.calibrate),
    *(studies.study, studies.crossval),
    *(scores.score, scores.compare),
    *(review.agreement, review.monitor),
    system.doctor,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; a wrong request is one line on standard error and status 2."""
    leave = leaving_at_once() if arguments is None else None
    status = _run(list(sys.argv[1:] if arguments is None else arguments))
    if leave is not None:
        leave(status)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """The exit status of a command."""
    # Threads that wait for one another asleep instead of spinning: the same speed on a quiet machine, and with one
    # other busy process on two cores a convolution takes 21 ms instead of 50 ms. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share_threads()
    name_the_user()
    try:
        with leaving_no_empty_folders():
            status = cli.main(args=arguments, prog_name="rarevox", standalone_mode=False)
    except click.exceptions.Abort:  # click's name for a Ctrl-C that the command leaves to it
        return _explain(KeyboardInterrupt())
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(visible(said.getvalue()), err=True, nl=False)
        return 2
    except (Exception, KeyboardInterrupt) as error:
        worded = isinstance(error, WORDED) or is_out_of_memory(error)
        if "--debug" in arguments or not worded:
            _show_traceback()  # with names of files and messages that others wrote
        return _explain(error) if worded else 1
    return status if isinstance(status, int) else 0


def _show_traceback() -> None:
    import traceback

    click.echo(visible(traceback.format_exc()), err=True, nl=False)


def _explain(error: BaseException) -> int:
    """Say what went wrong in one line; returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    text = str(error)
    if is_out_of_memory(error) and not isinstance(error, RequestError):  # which says more of it
        text = "memory ran out; what is written is whole: close other programs, or take more memory, and call again"
    elif isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or text}{where}; free space, correct the permission or choose another place"
    click.echo(f"rarevox: {one_line(text)}", err=True)
    return 2


if __name__ == "__main__":
    main()
