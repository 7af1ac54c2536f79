"""Scores of one outcome: the pictures against the truth, the faces in them, the person.

A score is a float, or NaN where it does not exist (a profile has no error over eyes it does not
show). A face that was not found is an answer, too: `*_found` is 0, and the scores that need the
face take the value of a complete failure.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from instant_gs.data import format as data_format
from instant_gs.evaluation import reenactment
from instant_gs.losses import lpips as lpips_lib
from instant_gs.metrics import face, identity, image

#: Name of a region error -> the regions that it averages over.
REGION_GROUPS = {"eyes": ("eyes",), "mouth": ("mouth",), "eyes_mouth": ("eyes", "mouth")}
#: Which of the two pictures a score is of.
VARIANTS = ("moved", "rest")
# What a face that cannot be found scores: every reliable coefficient wrong by its whole range,
# lips and lids as far off as the eyes are apart, a stranger.
FAILED_EXPRESSION, FAILED_LANDMARKS, FAILED_IDENTITY = 1.0, 1.0, 1.0


class ImageScorer:
    """PSNR, SSIM, LPIPS, L1 and region errors against the truth."""

    def __init__(self, networks: tuple[str, ...] = ("alexnet",)):
        """Loads the LPIPS networks.

        Args:
            networks: Of ``losses.lpips.NETWORKS``; scores "lpips" (AlexNet) and "lpips_vgg".
        """
        self._networks = {
            "lpips" if name == "alexnet" else f"lpips_{name}": lpips_lib.Lpips(name)
            for name in networks
        }

    def __call__(self, outcome: reenactment.Outcome) -> dict[str, dict[str, float]]:
        """Scores by variant and name; all NaN for a case without truth."""
        case = outcome.case
        if case.truth is None:
            regions = (f"error_{name}" for name in REGION_GROUPS)
            names = ("psnr", "ssim", "l1", *self._networks, *regions)
            return {variant: dict.fromkeys(names, float("nan")) for variant in VARIANTS}
        pictures = np.stack([outcome.moved, outcome.rest])
        values = jax.device_get(self._score(pictures, case.truth, case.regions))
        return {
            variant: {name: float(value[index]) for name, value in values.items()}
            for index, variant in enumerate(VARIANTS)
        }

    @functools.cached_property
    def _score(self):
        @jax.jit
        def score(pictures, truth, regions):
            pictures = pictures.astype(jnp.float32) / 255
            truth = jnp.broadcast_to(truth[None].astype(jnp.float32) / 255, pictures.shape)
            regions = jnp.broadcast_to(regions[None], pictures.shape[:-1])
            values = {
                "psnr": image.psnr(pictures, truth),
                "ssim": image.ssim(pictures, truth),
                "l1": jnp.abs(pictures - truth).mean((1, 2, 3)),
            }
            for name, network in self._networks.items():
                values[name] = network(pictures, truth)
            for name, group in REGION_GROUPS.items():
                labels = tuple(data_format.REGIONS.index(region) for region in group)
                values[f"error_{name}"] = image.region_error(pictures, truth, regions, labels)
            return values

        return score


class FaceScorer:
    """Expression and identity as networks that nothing was trained on see them."""

    def __init__(self, landmarker, embedder=None):
        """Keeps the networks.

        Args:
            landmarker: ``metrics.face.FaceLandmarker``.
            embedder: ``metrics.identity.IdentityEmbedder``, or None to leave identity out.
        """
        self._landmarker, self._embedder = landmarker, embedder

    def __call__(self, outcome: reenactment.Outcome) -> dict[str, dict[str, float]]:
        """Scores by variant and name.

        "face_found" is 1 or 0; it is NaN where no face is found in the truth either, which says
        something of the detector only. Expression and landmark errors are against the truth and
        exist where its face is found. "identity_distance" is that to the truth, or to the source
        where there is none. "identity_kept" is 1 if that is smaller than the distance to the
        driver, another person: a threshold made for photos says little of rendered heads.
        """
        case = outcome.case
        reference_image = case.source if case.truth is None else case.truth
        reference = self._landmarker.detect(reference_image)
        persons = self._persons(case, reference_image, reference)
        scores = {}
        for variant in VARIANTS:
            picture = getattr(outcome, variant)
            found = self._landmarker.detect(picture)
            scores[variant] = {
                **_expression(found, reference, case.truth is not None),
                **self._identity(picture, found, *persons),
            }
        return scores

    def _persons(self, case, reference_image, reference):
        """Embeddings of the right person and, in cross-reenactment, of the driver."""
        if self._embedder is None:
            return None, None
        right = self._embed(reference_image, reference)
        if not case.other_driver:
            return right, None
        return right, self._embed(case.driver, self._landmarker.detect(case.driver))

    def _identity(self, picture, found, right, driver) -> dict[str, float]:
        if self._embedder is None:
            return {}
        if right is None:
            return {"identity_distance": float("nan"), "identity_kept": float("nan")}
        own = self._embed(picture, found)
        distance = FAILED_IDENTITY if own is None else identity.distance(own, right)
        kept = float("nan")
        if driver is not None:
            kept = float(own is not None and distance < identity.distance(own, driver))
        return {"identity_distance": distance, "identity_kept": kept}

    def _embed(self, picture, observation):
        return self._embedder.embed(picture, None if observation is None else observation.box)


def _expression(found, reference, has_truth: bool) -> dict[str, float]:
    nothing = float("nan")
    scores = dict.fromkeys(("face_found", "expression_error", "landmark_error"), nothing)
    if reference is None:
        return scores
    scores["face_found"] = float(found is not None)
    if not has_truth:
        return scores
    if found is None:
        return scores | {
            "expression_error": FAILED_EXPRESSION,
            "landmark_error": FAILED_LANDMARKS,
        }
    return scores | {
        "expression_error": face.expression_error(found, reference),
        "landmark_error": face.landmark_error(found, reference),
    }
