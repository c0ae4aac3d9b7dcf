from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from rarevox.pipeline.cli import cli
from rarevox.pipeline.compose import compose, derive, write_yaml
from rarevox.pipeline.errors import RequestError
from rarevox.pipeline.trust.sums import SUMS_FILE, write_sums
from rarevox.pipeline.trust.verify import SIGNATURE_FILE, verify

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    config = compose("train").config
    for stage in ("train", "evaluate", "inference"):
        path = run / "configs" / f"{stage}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write_yaml(config if stage == "train" else derive(stage, config)))
    (run / "models").mkdir()
    (run / "models" / "model.pt").write_bytes(b"weights")
    write_sums(run)
    return run


def test_a_run_as_it_was_written_is_verified(run: Path) -> None:
    assert verify(run) == 0
    assert CliRunner().invoke(cli, ["verify", str(run)], standalone_mode=False).return_value == 0


@pytest.mark.parametrize("file", ["models/model.pt", "configs/train.yaml"])
def test_a_changed_or_missing_file_is_named(run: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / file).open("ab") as handle:
        handle.write(b"\n# more")
    assert verify(run) == 1
    assert f"{file} is not what it was" in " ".join(capsys.readouterr().err.split())
    (run / file).unlink()
    assert verify(run) == 1
    assert f"{file} is missing" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["configs/other.yaml", "models/other.pt", "torch.py", "scripts/net.py"])
def test_a_file_that_was_added_is_named(run: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Python code too: it would be imported in place of a library where MONAI's tools run in the folder."""
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text("")
    assert verify(run) == 1
    assert f"{file} is not in {SUMS_FILE}" in capsys.readouterr().err


def test_checkpoints_and_results_may_come_and_go(run: Path) -> None:
    for name in ("models/last.pt", "models/previous.pt", "evaluation/test/metrics.json", "docs/README.md"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    assert verify(run) == 0


def test_words_that_are_not_ours_are_told_and_change_no_sum(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "configs" / "inference.yaml"
    path.write_text(path.read_text() + "mine: $1 + 1\n")
    write_sums(run)
    assert verify(run) == 0
    assert "more than data" in capsys.readouterr().err


def test_no_run_or_no_sums_is_a_wrong_request(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no folder"):
        verify(tmp_path / "none")
    (run / SUMS_FILE).unlink()
    with pytest.raises(RequestError, match="carries no"):
        verify(run)
    with pytest.raises(RequestError, match="--signers"):
        verify(run, signers=tmp_path / "none")


def key(folder: Path, name: str) -> Path:
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def sign(run: Path, secret: Path, namespace: str = "rarevox") -> None:
    (run / SIGNATURE_FILE).unlink(missing_ok=True)
    command = ["ssh-keygen", "-Y", "sign", "-f", str(secret), "-n", namespace, str(run / SUMS_FILE)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def allow(folder: Path, **keys: Path) -> Path:
    file = folder / "signers"
    file.write_text("".join(f"{who}@x {secret.with_suffix('.pub').read_text()}" for who, secret in keys.items()))
    return file


@needs_ssh
def test_a_signature_is_that_of_an_allowed_signer(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ada, eve = key(tmp_path, "ada"), key(tmp_path, "eve")
    sign(run, ada)
    assert verify(run) == 0  # it holds, whoever made it
    assert verify(run, signers=allow(tmp_path, eve=eve, ada=ada)) == 0
    assert "for ada@x" in " ".join(capsys.readouterr().err.split())
    assert verify(run, signers=allow(tmp_path, eve=eve)) == 1


@needs_ssh
def test_a_signature_of_other_sums_or_for_another_purpose_does_not_hold(run: Path, tmp_path: Path) -> None:
    ada = key(tmp_path, "ada")
    signers = allow(tmp_path, ada=ada)
    sign(run, ada, namespace="git")
    assert verify(run) == verify(run, signers=signers) == 1
    sign(run, ada)
    (run / "models" / "model.pt").write_bytes(b"others")
    write_sums(run)  # the sums are right again, and no longer those that were signed
    assert verify(run) == verify(run, signers=signers) == 1


@needs_ssh
def test_where_signers_are_named_no_signature_is_a_fault(run: Path, tmp_path: Path) -> None:
    assert verify(run, signers=allow(tmp_path, ada=key(tmp_path, "ada"))) == 1
