"""What ``bench session`` measures: sessions whose answers do not grow, and a cache that does."""

import pytest

from sleep_lightning.bench.session import Size, bench_session


@pytest.mark.long
def test_rows() -> None:
    size = Size(d_model=16, pattern="AG", window=8, passes=(1, 3), tokens_read=(20, 300))
    rows = list(bench_session(0, size))
    assert [(r["contender"], r["tokens_read"]) for r in rows] == [
        (name, read) for read in (20, 300) for name in ("sleep N=1", "sleep N=3", "full cache")
    ]
    assert all(0 < float(str(r["token_p50_ms"])) <= float(str(r["token_p99_ms"])) for r in rows)
    by = {(r["contender"], r["tokens_read"]): r for r in rows}
    short, long = ({name: by[name, read] for name in ("sleep N=1", "sleep N=3", "full cache")} for read in (20, 300))
    assert long["full cache"]["bytes"] == 15 * float(str(short["full cache"]["bytes"]))
    for key in ("bytes", "mflops_per_token", "parameters"):
        assert long["sleep N=3"][key] == short["sleep N=3"][key] == short["sleep N=1"][key]
    assert float(str(long["full cache"]["mflops_per_token"])) > float(str(short["full cache"]["mflops_per_token"]))
    assert float(str(long["sleep N=3"]["sleep_ms_per_window"])) > float(str(long["sleep N=1"]["sleep_ms_per_window"]))
    assert 0.9 < float(str(by["full cache", 20]["parameters"])) / float(str(by["sleep N=1", 20]["parameters"])) < 1.1
