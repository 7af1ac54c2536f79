"""What sampling takes of a pack and what it leaves out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PackUse:
    """What a split of one pack gives to sampling.

    Attributes:
      path: of the pack.
      split: its name.
      people: identities of the split, `people_used` of which are sampled.
      clips: of these people, `clips_used` of which are sampled.
      records: of these clips, `records_used` of which are sampled.
      elsewhere: identities of the pack that are in other splits.
      unknown_cameras: clips left out because their camera is unknown.
      lone_frames: people left out because they have a single frame.
      single_views: sampled performances that one camera alone saw.
    """

    path: str
    split: str
    people: int
    people_used: int
    clips: int
    clips_used: int
    records: int
    records_used: int
    elsewhere: int
    unknown_cameras: int
    lone_frames: int
    single_views: int

    def __str__(self) -> str:
        """One line, such as "packs/a: split train uses 8 of 9 people, ..."."""
        remarks = [
            f"{number:,} {what}"
            for number, what in (
                (self.unknown_cameras, "clips left out: their camera is unknown"),
                (self.lone_frames, "people left out: they have a single frame"),
                (self.single_views, "performances were seen by one camera only"),
                (self.elsewhere, "people are in other splits"),
            )
            if number
        ]
        return "; ".join(
            [
                f"{self.path}: split {self.split} uses {self.people_used:,} of {self.people:,} "
                f"people, {self.clips_used:,} of {self.clips:,} clips, {self.records_used:,} of "
                f"{self.records:,} records",
                *remarks,
            ]
        )
