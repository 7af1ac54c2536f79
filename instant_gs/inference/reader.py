"""Who reads an expression: the landmark network that finds faces, or the weights' motion encoder.

A motion encoder that learned from drawn people reads real faces faintly; the landmark network has
seen real ones. Its 52 coefficients are those that the teacher moves, and a learned encoder's code
is linear in them, so either can be the driver (docs/decisions/0015).
"""

import numpy as np

from instant_gs import types
from instant_gs.inference import tremble
from instant_gs.portrait import alignment

READERS = ("landmarks", "encoder")

#: Standard deviation of a coefficient that the landmark network reads in a still face, root mean
#: square over all 52: seven photos, 512 to 720 pixels high but for one of 112 and one of 400, each
#: with ``tremble.disturb`` 16 times.
COEFFICIENT_NOISE = 0.018

#: Disturbed faces from which the noise of a motion is estimated: the estimate averages 2F numbers
#: each, so few are enough.
CALIBRATION_FRAMES = 8


class Reader:
    """Reads photos and driving faces for one model: both alike, or a face would not be itself.

    Attributes:
        name: Of ``READERS``.
    """

    def __init__(self, engine, name: str | None = None, *, known: bool = True):
        """Chooses.

        Args:
            engine: ``avatar.InstantAvatar`` or anything with its ``config``, ``motion_code``,
                ``code_from_coefficients``, ``motion`` and ``read_motion``.
            name: Of ``READERS``; None: "landmarks", if ``known`` and by ``learned_coefficients``.
            known: Whether the faces come with coefficients: a landmark network found them.

        Raises:
            ValueError: Another word; or "landmarks" for faces without coefficients, or for the
                release's weights, which know none.
        """
        if name not in (None, *READERS):
            raise ValueError(f"reader: expected one of {READERS}, got {name!r}; or leave it out")
        why = "" if known else "faces that came cut out, without coefficients"
        if engine.config.model.motion.encoder != "learned":
            why = "these weights, whose motion encoder knows no coefficients"
        if name == "landmarks" and why:
            raise ValueError(f'reader: expected "encoder" for {why}, got {name!r}; leave it out')
        self._engine = engine
        by_landmarks = known and learned_coefficients(engine.config)
        self.name = name or ("landmarks" if by_landmarks else "encoder")

    @property
    def expects_matte(self) -> bool:
        """Whether drivers should lose their background before they are read.

        A learned encoder has seen faces over black only. The release's reads them as they are, and
        landmarks have been read before.
        """
        return self.name == "encoder" and self._engine.config.model.motion.encoder == "learned"

    def sees(self, face: alignment.AlignedFace) -> bool:
        """Whether there is a face to read."""
        return self._knows(face) or bool(face.image.any())

    def code(self, face: alignment.AlignedFace):
        """(C,) motion code of a photo or a driving face.

        Raises:
            ValueError: The landmarks should be read, and the face comes without coefficients.
        """
        if self.name == "encoder":
            return self._engine.motion_code(face.image)
        if not self._knows(face):
            raise ValueError(
                "coefficients: expected those of a face, as the photo's, got None; pass an "
                'AlignedFace with both, or reader="encoder"'
            )
        return self._engine.code_from_coefficients(face.coefficients)

    def motion(self, code_source, face: alignment.AlignedFace) -> types.Motion:
        """What moves the photo of a code (C,) to a driving face's expression.

        Raises:
            ValueError: As ``code``.
        """
        if self.name == "encoder":
            return self._engine.read_motion(code_source, face.image)
        return self._engine.motion(code_source, self.code(face))

    def noise(self, code_source, face: alignment.AlignedFace) -> float:
        """How much ``motion`` trembles while a face is still: the unit of ``one_euro``.

        Returns:
            Standard deviation of one of the ``Motion`` numbers, root mean square over all.
        """
        random = np.random.default_rng(0)

        def disturbed():
            if not self._knows(face):
                return alignment.AlignedFace(tremble.disturb(face.image, random))
            error = COEFFICIENT_NOISE * random.normal(size=len(face.coefficients))
            return alignment.AlignedFace(face.image, face.coefficients + error)

        rows = [as_array(self.motion(code_source, disturbed())) for _ in range(CALIBRATION_FRAMES)]
        return float(np.sqrt(np.var(rows, axis=0, ddof=1).mean()))

    def _knows(self, face: alignment.AlignedFace) -> bool:
        return self.name == "landmarks" and face.coefficients is not None


def learned_coefficients(config) -> bool:
    """Whether a configuration says that its motion encoder's 52 numbers are the coefficients.

    Those of weights that had their encoder from elsewhere, or went on training it, it does not
    know; "landmarks" can still be asked for.
    """
    pretrain = config.motion_pretrain
    known = pretrain.teacher_forcing or (pretrain.steps > 0 and pretrain.freeze)
    return config.model.motion.encoder == "learned" and known


def as_array(motion: types.Motion) -> np.ndarray:
    """(2, F) float32 on the host; ``types.Motion(*array)`` goes back."""
    return np.stack([np.asarray(motion.scale), np.asarray(motion.shift)])
