"""Says that pictures lack Gaussians, when the log first shows it: no step can raise by itself."""

from instant_gs.config import Config
from instant_gs.training import distributed


class Watch:
    """Warns once a process.

    Args:
        config: Of the run.
    """

    def __init__(self, config: Config):
        self._largest, self._said = config.model.gaussians.max_scale, False

    def look(self, step: int, metrics: dict[str, float]) -> None:
        """Warns if "overflow" among the metrics of a step is not 0, unless it did before."""
        mean = metrics.get("overflow", 0.0)
        if self._said or not mean > 0:
            return
        self._said = True
        distributed.say(
            f"warning: step {step}: pictures lack their farthest Gaussians ({mean:.3g} "
            "intersections with tiles a picture did not fit in the rasterizer, avatar/overflow): "
            "too many are large; a new run with --config.model.gaussians.max_scale below "
            f"{self._largest:g} keeps them smaller"
        )
