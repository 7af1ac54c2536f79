"""Who reads an expression: the landmark network that finds faces, or the weights' motion encoder.

A motion encoder that learned from drawn people reads real faces faintly; the landmark network has
seen real ones. Its 52 coefficients are those that the teacher moves, and a learned encoder's code
is linear in them, so either can be the driver (docs/decisions/0015).
"""

import numpy as np

from instant_gs import types
from instant_gs.inference import still_face
from instant_gs.portrait import alignment

READERS = ("landmarks", "encoder")

#: Standard deviation of a coefficient that the landmark network reads in a still face, root mean
#: square over all 52: seven photos, 512 to 720 pixels high but for one of 112 and one of 400, each
#: with ``still_face``'s sensor noise and jitter 16 times.
COEFFICIENT_NOISE = 0.018


class Reader:
    """Reads photos and driving faces for one model.

    Attributes:
        name: Of ``READERS``. Faces without coefficients, as they come aligned, are always the
            encoder's.
    """

    def __init__(self, engine, name: str | None = None):
        """Chooses.

        Args:
            engine: ``avatar.InstantAvatar`` or anything with its ``config``, ``motion_code``,
                ``code_from_coefficients``, ``motion`` and ``read_motion``.
            name: Of ``READERS``; None: "landmarks", if the weights learned from coefficients.

        Raises:
            ValueError: Another word, or "landmarks" for weights that know no coefficients.
        """
        if name not in (None, *READERS):
            raise ValueError(f"reader: expected one of {READERS}, got {name!r}; or leave it out")
        if name == "landmarks" and engine.config.model.motion.encoder != "learned":
            raise ValueError(
                'reader: expected "encoder" for these weights, whose motion encoder knows no '
                f"coefficients, got {name!r}; leave it out"
            )
        self._engine = engine
        self.name = name or ("landmarks" if learned_coefficients(engine.config) else "encoder")

    @property
    def expects_matte(self) -> bool:
        """Whether drivers should lose their background before they are read.

        A learned encoder has seen faces over black only. The release's reads them as they are, and
        landmarks have been read before.
        """
        return self.name == "encoder" and self._engine.config.model.motion.encoder == "learned"

    def code(self, face: alignment.AlignedFace):
        """(C,) motion code of a photo."""
        if self._by_landmarks(face):
            return self._engine.code_from_coefficients(face.coefficients)
        return self._engine.motion_code(face.image)

    def motion(self, code_source, face: alignment.AlignedFace) -> types.Motion:
        """What moves the photo of a code (C,) to a driving face's expression."""
        if self._by_landmarks(face):
            return self._engine.motion(code_source, self.code(face))
        return self._engine.read_motion(code_source, face.image)

    def noise(self, code_source, face: alignment.AlignedFace) -> float:
        """How much ``motion`` trembles while a face is still: the unit of ``one_euro``.

        Returns:
            Standard deviation of one of the ``Motion`` numbers, root mean square over all.
        """
        random = np.random.default_rng(0)

        def disturbed():
            if not self._by_landmarks(face):
                return alignment.AlignedFace(still_face.disturb(face.image, random))
            error = COEFFICIENT_NOISE * random.normal(size=len(face.coefficients))
            return alignment.AlignedFace(face.image, face.coefficients + error)

        rows = [
            still_face.as_array(self.motion(code_source, disturbed()))
            for _ in range(still_face.CALIBRATION_FRAMES)
        ]
        return float(np.sqrt(np.var(rows, axis=0, ddof=1).mean()))

    def _by_landmarks(self, face: alignment.AlignedFace) -> bool:
        return self.name == "landmarks" and face.coefficients is not None


def learned_coefficients(config) -> bool:
    """Whether the 52 numbers within a motion encoder were trained to be coefficients."""
    pretrain = config.motion_pretrain
    known = pretrain.steps > 0 or pretrain.teacher_forcing
    return config.model.motion.encoder == "learned" and known
