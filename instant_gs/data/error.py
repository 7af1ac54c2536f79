"""The errors of teacher packs."""


class PackError(ValueError):
    """A pack, shard, clip or record that is missing, truncated, corrupted or inconsistent.

    The message names the file (and clip or record) and says what to do.
    """


class BrokenClipError(PackError):
    """A clip of a source pack that cannot be used.

    Attributes:
      identity: name of the identity.
      clip: name of the clip, "" where the identity as a whole is broken.
      reason: what is wrong, naming file and frame.
    """

    def __init__(self, identity: str, clip: str, reason: str):
        super().__init__(identity, clip, reason)  # All three: errors cross process boundaries.
        self.identity = identity
        self.clip = clip
        self.reason = reason

    def __str__(self) -> str:
        where = f"{self.identity}/{self.clip}" if self.clip else self.identity
        return f"{where}: {self.reason}"
