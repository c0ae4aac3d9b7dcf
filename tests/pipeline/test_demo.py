from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rarevox.pipeline.demo import demo
from rarevox.pipeline.errors import RequestError


@pytest.mark.usefixtures("counted_clock")
def test_the_whole_pipeline_runs_and_prints_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Coarse phantoms and a narrow network: every stage for real, in seconds."""
    settings = ["network_def#width=4", "patch_size=[16,16,16]", "batch_size=1"]
    status = demo(
        tmp_path / "demo", minutes=0.1, subjects=5, lesion_share=3e-3, spacing_mm=5, settings=settings, device="cpu"
    )
    assert status == 0
    report = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert report.name == "report.html"
    assert "lesion" in report.read_text(encoding="utf-8")
    assert len(list((tmp_path / "demo" / "predictions").glob("*_seg.nii.gz"))) >= 1
    with pytest.raises(RequestError, match="already holds other files"):
        demo(tmp_path / "demo", minutes=0.1)


@pytest.mark.parametrize(
    ("options", "said"), [({"minutes": 0.0}, "--minutes is 0"), ({"subjects": 1}, "give 2 or more")]
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        demo(tmp_path / "demo", **options)
    assert not (tmp_path / "demo").exists()


def test_a_demo_without_lesions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="share above 0"):
        demo(tmp_path / "demo", lesion_share=0)
    assert not (tmp_path / "demo").exists()
