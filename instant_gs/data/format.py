"""Names and constants of the teacher-pack format, both forms. See docs/teacher_pack.md.

This module imports nothing, so every other module may import it.
"""

#: The 52 ARKit blend shapes in alphabetical order: MediaPipe's order without its `_neutral`, then
#: `tongueOut`, which MediaPipe lacks. Coefficient arrays (..., 52) follow it, values in [0, 1].
COEFFICIENT_NAMES = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)

#: Labels of a region image (uint8, label = index). Eyes are eyeballs and the lids around them;
#: mouth is lips, teeth, tongue, inside and a thin rim, so an error there is one of expression.
REGIONS = ("background", "skin", "eyes", "mouth", "brows", "hair", "neck_ears", "clothes")

#: Side of the centred square with the face, as a share of the aligned image's side: it keeps chin
#: and brows of an open mouth at the reference framing and drops hair and shoulders.
FACE_CROP = 0.62

#: Source form: `<pack>/manifest.json` and `<pack>/<identity>/identity.json`.
SOURCE_FORMAT = "instant_gs.teacher"
SOURCE_VERSION = 1
MANIFEST_NAME = "manifest.json"
IDENTITY_NAME = "identity.json"
UNKNOWN_CAMERA = "unknown"

#: Packed form: `<packed>/manifest.json`, `shards/*.array_record`, `index/*.json`.
PACKED_FORMAT = "instant_gs.packed"
PACKED_VERSION = 1
SHARD_FOLDER = "shards"
INDEX_FOLDER = "index"
SHARD_SUFFIX = ".array_record"

#: In the place of the hash of a clip's coefficients, where they are estimates.
ESTIMATED_TRACK = "estimated"

#: Shares of identities, decided by a stable hash of the identity's name.
SPLITS = ("train", "validation", "test")
SPLIT_SHARES = (0.90, 0.05, 0.05)
#: For a pack that is held out as a whole (a freshly rendered evaluation pack): every identity.
ALL_SPLITS = "all"

#: Label of every pixel of a frame that came without region masks: equal to none of `REGIONS`.
REGION_UNKNOWN = 255
