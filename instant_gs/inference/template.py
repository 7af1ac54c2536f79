"""The rigid template that ``alignment`` lays over detected landmarks.

Measured on the procedural teacher by ``python -m instant_gs.inference.calibration --identities=16``
(seed 31; 304 pictures of 320 pixels, a face found in all of them).
"""

import numpy as np

#: MediaPipe landmark -> point in units of the crop's side, in a frontal picture's axes (x right,
#: y down, z away), zero at the world's origin, which the model's camera looks at. Chosen because
#: neither jaw nor lips nor lids move them: eye corners, bridge, tip and base of the nose, nostrils,
#: temples, the face's edge before the ears, forehead.
_POINTS = {
    33: (-0.1405, -0.0865, -0.1957),
    133: (-0.0575, -0.0780, -0.2154),
    362: (0.0575, -0.0780, -0.2154),
    263: (0.1405, -0.0865, -0.1957),
    168: (0.0000, -0.0986, -0.2642),
    6: (0.0000, -0.0709, -0.2781),
    5: (0.0000, -0.0072, -0.3283),
    2: (0.0000, 0.0601, -0.2851),
    98: (-0.0507, 0.0551, -0.2591),
    327: (0.0507, 0.0551, -0.2591),
    127: (-0.2255, -0.0785, -0.0332),
    356: (0.2255, -0.0785, -0.0332),
    234: (-0.2231, -0.0317, -0.0197),
    454: (0.2231, -0.0317, -0.0197),
    10: (0.0000, -0.2551, -0.2504),
    151: (0.0000, -0.2067, -0.2625),
}

LANDMARKS = tuple(_POINTS)
POINTS = np.array(list(_POINTS.values()))

#: The landmark on the other side of the face, for each of ``LANDMARKS``.
MIRROR = (263, 362, 133, 33, 168, 6, 5, 2, 327, 98, 356, 127, 454, 234, 10, 151)
