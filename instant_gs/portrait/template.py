"""The rigid template that ``alignment`` lays over detected landmarks.

Measured on the procedural teacher by ``python -m instant_gs.inference.calibration --identities=24``
(seed 31; 456 pictures of 320 pixels, yaw to ±40 and pitch to ±15 degrees, a face found in all of
them). With it ``alignment.locate`` finds the true crop of single heads within, as shares of its
side (standard deviation): 0.01 across, 0.025 in height, 0.065 in size; most of that is how heads
differ. An open mouth, a smile, raised brows or closed eyes change the size by at most 0.016 and
the height by 0.009. Pupils of a frontal head are 0.196 apart, 0.094 above the centre.
"""

import numpy as np

#: MediaPipe landmark -> point in units of the crop's side, in a frontal picture's axes (x right,
#: y down, z away), zero at the world's origin, which the model's camera looks at. Chosen because
#: neither jaw nor lips nor lids move them: eye corners, bridge, tip and base of the nose, nostrils,
#: temples, the face's edge before the ears, forehead.
_POINTS = {
    33: (-0.1381, -0.0930, -0.1963),
    133: (-0.0554, -0.0842, -0.2152),
    362: (0.0554, -0.0842, -0.2152),
    263: (0.1381, -0.0930, -0.1963),
    168: (0.0000, -0.1022, -0.2646),
    6: (0.0000, -0.0740, -0.2779),
    5: (0.0000, -0.0076, -0.3261),
    2: (0.0000, 0.0598, -0.2813),
    98: (-0.0506, 0.0540, -0.2558),
    327: (0.0506, 0.0540, -0.2558),
    127: (-0.2258, -0.0870, -0.0352),
    356: (0.2258, -0.0870, -0.0352),
    234: (-0.2239, -0.0401, -0.0206),
    454: (0.2239, -0.0401, -0.0206),
    10: (0.0000, -0.2593, -0.2540),
    151: (0.0000, -0.2099, -0.2652),
}

LANDMARKS = tuple(_POINTS)
POINTS = np.array(list(_POINTS.values()))

#: The landmark on the other side of the face, for each of ``LANDMARKS``.
MIRROR = (263, 362, 133, 33, 168, 6, 5, 2, 327, 98, 356, 127, 454, 234, 10, 151)
