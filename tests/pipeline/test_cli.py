from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rarevox.pipeline.cli import cli, main
from tests import forked

COMMANDS = (
    "demo",
    "prepare",
    "train",
    "evaluate",
    "predict",
    "score",
    "compare",
    "agreement",
    "monitor",
    "tune-threshold",
    "tune-postprocessing",
    "calibrate",
    "doctor",
)


def status_of(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_list_of_commands_cuts_no_sentence() -> None:
    listed = CliRunner().invoke(cli, ["--help"], terminal_width=80).output.split("Commands:")[1]
    assert "..." not in listed
    assert listed.count("\n  ") == len(cli.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_has_help(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert command in cli.commands


def test_options_of_the_contract() -> None:
    expected = {
        "demo": {"--output"},
        "prepare": {"--output", "--holdout", "--folds", "--seed", "--skip-faulty", "--channel", "--label"}
        | {"--structure"},
        "train": {"--output", "--network", "--loss", "--config", "--set", "--iterations", "--minutes", "--fold"}
        | {"--device", "--resume"},
        "evaluate": {"--section", "--output", "--threshold"},
        "predict": {"--output", "--entropy", "--threshold"},
        "score": {"--output", "--structure", "--dataset", "--gates", "--post-processing"},
        "compare": {"--output", "--metric", "--name"},
        "agreement": {"--model", "--output", "--structure", "--flag-below", "--tolerance", "--empty", "--resample"},
        "monitor": {"--add", "--site", "--scanner", "--date", "--by", "--baseline", "--since", "--output"},
        "tune-threshold": {"--device", "--aim", "--false-lesions"},
        "tune-postprocessing": {"--device", "--aim", "--dice-cost"},
        "calibrate": {"--device"},
    }
    for command, options in expected.items():
        known = {option for parameter in cli.commands[command].params for option in parameter.opts}
        assert options <= known, command


def test_a_wrong_request_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["train", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "is not a prepared dataset" in errors[0]
    assert "rarevox prepare" in errors[0]


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train"], ["train", "x", "--output", "y", "--minutes", "-1"], ["score", "a", "b", "--empty", "two"]],
)
def test_usage_errors_have_status_2(arguments: list[str]) -> None:
    assert status_of(arguments) == 2


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    code = "from rarevox.pipeline.cli import main; main()"
    done = forked.run(["-c", code, "--debug", "evaluate", str(tmp_path), str(tmp_path)])
    assert "Traceback" in done.stderr
    assert "RequestError" in done.stderr
    assert done.returncode == 2


def test_a_traceback_obeys_no_name(tmp_path: Path) -> None:
    code = "from rarevox.pipeline.cli import main; main()"
    done = forked.run(["-c", code, "--debug", "evaluate", str(tmp_path / "a\x1b[2J\u202e"), str(tmp_path)])
    assert "Traceback" in done.stderr
    assert "a\\x1b[2J\\u202e" in done.stderr
    assert not {"\x1b", "\u202e"} & set(done.stderr)


def test_an_output_that_cannot_be_written_is_told(
    dataset_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert status_of(["train", str(dataset_dir), "--output", str(tmp_path / "file" / "run"), "--iterations", "1"]) == 2
    assert f"cannot be made in {tmp_path}: Not a directory; choose another place" in capsys.readouterr().err
    assert status_of(["train", str(dataset_dir), "--output", "/proc/x", "--iterations", "1"]) == 2
    assert "/proc/x cannot be made in /proc: no folder can be made there" in capsys.readouterr().err


def test_doctor_says_what_it_computes_with() -> None:
    done = forked.run(["-c", "from rarevox.pipeline.cli import main; main(['doctor'])"])
    assert done.returncode in (0, 1)
    for word in ("torch", "monai", "CPU bfloat16", "3D convolution"):
        assert word in done.stderr


def test_what_libraries_say_holds_nothing_that_a_terminal_obeys() -> None:
    program = (
        "import logging, sys, warnings\n"
        "from rarevox.pipeline.cli import main\n"
        "try: main(['doctor', '--help'])\n"
        "except SystemExit: pass\n"
        "warnings.warn('a\\x1b[2J')\n"
        "logging.getLogger('x').warning('b\\x9b31m %s', '\\u202e')\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    assert "a\\x1b[2J" in said and "b\\x9b31m \\u202e" in said
    assert not set("\x1b\x9b\u202e") & set(said)
