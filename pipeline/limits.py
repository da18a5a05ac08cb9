"""What a network may cost at most, and which limit one breaks: the only place that knows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a network may cost at most; None is no limit. The latency is that for one image on one core."""

    max_params: int | None = None
    max_mflops: float | None = None
    max_size_mb: float | None = None
    max_latency_ms: float | None = None

    def broken_by(self, num_params: int = 0, mflops: float = 0.0, latency_ms: float = 0.0) -> str:
        """Return which limits a network of these costs breaks, as text; empty if none."""
        checks = (
            (num_params, self.max_params, f"{num_params:,.6g} parameters"),
            (mflops, self.max_mflops, f"{mflops:,.6g} MFLOPs"),
            (num_params * 4 / 1e6, self.max_size_mb, f"{num_params * 4 / 1e6:,.6g} MB"),
            (latency_ms, self.max_latency_ms, f"{latency_ms:.2f} ms for one image on one core"),
        )
        return "; ".join(
            f"{text}, more than {limit:,.6g}" for value, limit, text in checks if limit is not None and value > limit
        )
