"""Videos in and out: what is written plays, what is broken is named."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from instant_gs import cli
from instant_gs.portrait import video

FFMPEG = (imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error")


def frames(count=24, height=48, width=64):
    """A bright square that moves to the right over a gradient."""
    ramp = np.linspace(30, 90, width, dtype=np.uint8)
    out = np.broadcast_to(ramp[None, None, :, None], (count, height, width, 3)).copy()
    for index in range(count):
        out[index, 10:20, 2 * index : 2 * index + 10] = 240
    return out


def write(path, images, fps=12.5):
    with video.Writer(path, fps=fps) as writer:
        for image in images:
            writer.append(image)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", frames())


def test_round_trip(clip):
    opened = video.open_video(clip)
    decoded = np.stack(list(opened.frames()))
    assert (opened.fps, opened.expected_frames, opened.problem) == (12.5, 24, "")
    assert decoded.shape == (24, 48, 64, 3)
    assert np.abs(decoded.astype(int) - frames()).mean() < 4
    assert len(list(opened.frames(limit=5))) == 5 and opened.problem == ""


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(list(video.open_video(write("12:30.mp4", frames(3))).frames())) == 3


def test_written_video_is_yuv420p_of_even_size(tmp_path):
    path = write(tmp_path / "odd.mp4", frames(3, 47, 63))
    text = subprocess.run([FFMPEG[0], "-i", path], capture_output=True, check=False).stderr.decode()
    assert "yuv420p" in text and "64x48" in text and "h264" in text


def test_colours_come_back_and_the_file_says_how_they_are_stored(tmp_path):
    """As we read them, and by a player that goes by the tags, or by what HD video is without."""
    colors = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 170, 140)], np.uint8)
    image = np.repeat(np.repeat(colors[None], 16, 1), 48, 0)
    path = write(tmp_path / "colors.mp4", [image] * 3)
    text = subprocess.run([FFMPEG[0], "-i", path], capture_output=True, check=False).stderr.decode()
    assert "yuv420p(tv, bt709" in text
    matrix = (
        "-vf",
        "scale=in_color_matrix=bt709:in_range=tv",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
    )
    raw = subprocess.run(
        [*FFMPEG, "-i", path, *matrix, "-"], capture_output=True, check=True
    ).stdout
    seen = np.frombuffer(raw, np.uint8).reshape(3, 48, 64, 3)
    for frame in (seen[0], next(video.open_video(path).frames())):
        np.testing.assert_allclose(frame[24, 8::16].astype(int), colors, atol=6)


def test_rotation_is_applied(clip, tmp_path):
    """A phone held upright stores lying frames and the turn (here a quarter, to the left)."""
    turned = tmp_path / "turned.mp4"
    command = [*FFMPEG, "-display_rotation", "90", "-i", clip, "-c", "copy", turned]
    subprocess.run(command, check=True)
    first = next(video.open_video(turned).frames()).astype(int)
    assert first.shape == (64, 48, 3)
    assert np.abs(first - np.rot90(frames(1)[0])).mean() < 4


def test_pixels_that_are_not_square_are_stretched(clip, tmp_path):
    command = [*FFMPEG, "-i", clip, "-vf", "setsar=3/2", tmp_path / "wide.mp4"]
    subprocess.run(command, check=True)
    first = next(video.open_video(tmp_path / "wide.mp4").frames())
    assert first.shape == (48, 96, 3)
    assert first[15, :14].min() > 150 > first[15, 18:].max(), "so is what they show"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_variable_frame_rate_keeps_the_time(tmp_path, ending):
    """Two seconds of 25 frames, then two of 5: the picture's brightness is its time."""
    path = tmp_path / f"clip.{ending}"
    source = "color=black:size=64x48:rate=25:duration=4,geq=lum=50*T:cb=128:cr=128"
    thin = "select='lt(t,2)+not(mod(n,5))'"
    command = [*FFMPEG, "-f", "lavfi", "-i", f"{source},{thin}", "-fps_mode", "vfr", path]
    subprocess.run(command, check=True)
    opened = video.open_video(path)
    seen = np.array([frame.mean() for frame in opened.frames()])
    times = np.arange(len(seen)) / opened.fps
    assert 3.4 < times[-1] < 4.1 and opened.problem == ""
    # Brightness runs from 16 to 235 on the disk, from 0 to 255 here.
    shown = (seen * 219 / 255 + 16) / 50
    steady = times > 0.4  # video black is below 16
    late = times[steady] - shown[steady]
    assert -0.11 < late.min() and late.max() < 0.25, "never further off than the file's own gaps"


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_jump_of_the_time_stamps_is_cut(tmp_path, ending):
    """A second of video, 28 hours without a picture, another second."""
    path = tmp_path / f"jump.{ending}"
    jump = "setpts='if(gte(N,25),PTS+100000/TB,PTS)'"
    source = f"testsrc=size=64x48:rate=25:duration=2,{jump}"
    command = [*FFMPEG, "-f", "lavfi", "-i", source, "-fps_mode", "passthrough", path]
    subprocess.run(command, check=True)
    opened = video.open_video(path)
    decoded = [frame.tobytes() for frame in opened.frames()]
    assert opened.fps == 25 and len(decoded) == pytest.approx(25 + 250 + 25, abs=2)
    assert len(set(decoded)) == 50, "every picture of both seconds is there"
    message = "time stamps jump, by up to 100000 s; a pause is cut to 10 s"
    assert opened.problem == f"{path}: {message}"


def test_4k_is_reduced_while_it_is_decoded(tmp_path):
    command = [*FFMPEG, "-f", "lavfi", "-i", "testsrc=size=2160x3840:rate=10:duration=0.2"]
    subprocess.run([*command, "-preset", "ultrafast", tmp_path / "phone.mp4"], check=True)
    shapes = [frame.shape for frame in video.open_video(tmp_path / "phone.mp4").frames()]
    assert shapes == [(1280, 720, 3)] * 2


def test_folder_of_frames(tmp_path):
    for index, image in enumerate(frames(3)):
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        rgba[:5, :, 3] = 0
        Image.fromarray(rgba).save(tmp_path / f"{index:05d}.png")
    (tmp_path / "._00000.png").write_bytes(b"as macOS leaves them")
    opened = video.open_video(tmp_path, fps=10)
    decoded = list(opened.frames())
    assert len(decoded) == 3 and opened.fps == 10
    assert (decoded[1][:5] == 0).all(), "transparent is black"
    np.testing.assert_array_equal(decoded[1][5:], frames(3)[1][5:])


def test_frames_are_taken_in_the_order_of_their_numbers(tmp_path):
    for index in range(1, 13):
        Image.new("RGB", (32, 32), (20 * index,) * 3).save(tmp_path / f"take2_{index}.png")
    seen = [frame[0, 0, 0] for frame in video.open_video(tmp_path).frames()]
    assert seen == [20 * index for index in range(1, 13)]


def test_truncated_tail_gives_what_decodes_and_a_sentence(clip, tmp_path):
    data = clip.read_bytes()  # the index comes first (faststart)
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 85 // 100])
    opened = video.open_video(tmp_path / "cut.mp4")
    count = len(list(opened.frames()))
    assert 0 < count < 24
    assert f"cut.mp4: the file is damaged or cut off; {count} of about 24" in opened.problem


@pytest.mark.parametrize(
    ("ending", "words"),
    [("mp4", "some frames may look broken"), ("avi", "of about 100 frames could be decoded")],
)
def test_broken_bytes_in_the_middle_are_said(tmp_path, ending, words):
    """An mp4 keeps the number of its frames; of the avi's a few are gone."""
    path = tmp_path / f"clip.{ending}"
    source = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=4")
    subprocess.run([*FFMPEG, *source, "-movflags", "+faststart", path], check=True)
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 400)
    data[middle] = bytes(byte ^ 0x5A for byte in data[middle])
    path.write_bytes(data)
    opened = video.open_video(path)
    assert len(list(opened.frames())) > 90
    assert words in opened.problem and str(path) in opened.problem


def test_a_long_video_is_known_to_be_long(tmp_path):
    path = tmp_path / "long.mp4"
    source = ("-f", "lavfi", "-i", "color=size=32x32:rate=0.1:duration=3700", "-c:v", "mpeg4")
    subprocess.run([*FFMPEG, *source, path], check=True)
    assert video.open_video(path).expected_frames == 370


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ("29.97 fps, 29.97 tbr, 90k tbn", 29.97),
        ("1k fps, 1k tbr, 16k tbn", 1000),  # a high-speed camera
        ("5 fps, 1k tbr, 1k tbn", 25),  # long pauses, and parts as dense as can be
        ("10 fps, 30 tbr, 1k tbn", 10),
        ("90k tbn", 0),
    ],
)
def test_frames_a_second_are_read_as_ffmpeg_writes_them(words, rate):
    assert video._rate(f"h264 (High), yuv420p, 64x48, {words} (default)") == rate


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_that_is_longer_than_the_picture_is_no_damage(tmp_path, ending):
    path, cut = tmp_path / f"clip.{ending}", tmp_path / f"cut.{ending}"
    source = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=2", "-f", "lavfi", "-i")
    command = [*FFMPEG, *source, "sine=d=6", "-movflags", "+faststart", path]
    subprocess.run(command, check=True)
    opened = video.open_video(path)
    assert len(list(opened.frames())) == 50 and opened.problem == ""
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) // 3])
    opened = video.open_video(cut)
    count = len(list(opened.frames()))
    assert 0 < count < 50
    assert opened.problem == (
        f"{cut}: the file is damaged or cut off; {count} frames could be decoded"
    )


def test_files_without_frames_are_named(clip, tmp_path):
    slow = tmp_path / "slow.mp4"  # the index comes last
    subprocess.run([*FFMPEG, "-i", clip, "-c", "copy", "-movflags", "0", slow], check=True)
    data = slow.read_bytes()
    (tmp_path / "headless.mp4").write_bytes(data[: len(data) // 2])
    start = clip.read_bytes()
    (tmp_path / "stub.mp4").write_bytes(start[: start.index(b"mdat") + 40])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.txt").write_text("no video, but FFmpeg would play it")
    (tmp_path / "empty.mp4").touch()
    sound = tmp_path / "sound.mp4"
    subprocess.run([*FFMPEG, "-f", "lavfi", "-i", "sine=d=0.2", sound], check=True)
    (tmp_path / "folder").mkdir()
    expected = {
        "headless.mp4": "cut off.*copy or download it again",
        "stub.mp4": "not one frame can be decoded",
        "text.mp4": "not a video that FFmpeg can read",
        "text.txt": "not a video that FFmpeg can read",
        "empty.mp4": "the file is empty",
        "sound.mp4": "sound only",
        "folder": "the folder holds no frames",
    }
    for name, message in expected.items():
        with pytest.raises(cli.UserError, match=message) as caught:
            list(video.open_video(tmp_path / name).frames())
        assert str(tmp_path / name) in str(caught.value), "the message names the file"
    with pytest.raises(FileNotFoundError):
        video.open_video(tmp_path / "missing.mp4")


@pytest.mark.parametrize("side", [1, 2])
def test_a_video_too_small_for_a_face_is_refused(tmp_path, side):
    path = tmp_path / "dot.avi"
    source = ("-f", "lavfi", "-i", f"color=red:size={side}x{side}:duration=0.2", "-c:v", "ffv1")
    subprocess.run([*FFMPEG, *source, path], check=True)
    message = f"{path}: the image is {side}x{side} pixels; a video of a face needs at least 32x32"
    with pytest.raises(cli.UserError, match=message):
        next(video.open_video(path).frames())


def test_nothing_is_left_after_a_failure(tmp_path):
    with (
        pytest.raises(RuntimeError, match="half way"),
        video.Writer(tmp_path / "a.mp4", fps=25) as writer,
    ):
        for image in frames(3):
            writer.append(image)
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="expected at least one"):
        write(tmp_path / "b.mp4", [])
    with pytest.raises(ValueError, match="first frame's shape"):
        write(tmp_path / "c.mp4", [frames(1)[0], frames(1, 20, 20)[0]])
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "a.mp4").write_text("precious")
    with pytest.raises(cli.UserError, match=r"exists already; choose another path"):
        write(tmp_path / "a.mp4", frames(1))
    with pytest.raises(cli.UserError, match=r"must end in \.mp4"):
        write(tmp_path / "a.avi", frames(1))
    assert (tmp_path / "a.mp4").read_text() == "precious"


def test_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    if not video.Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    command = video._encode_command

    def full(path, shape, fps):
        return [*command(path, shape, fps)[:-3], "-f", "avi", "/dev/full"]

    monkeypatch.setattr(video, "_encode_command", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3)))
    assert "disk is full" in cli.describe(caught.value)
    assert list(tmp_path.iterdir()) == []
